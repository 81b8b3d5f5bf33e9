"""What one task asks of its machine, in Kubernetes' quantities; each target says it in its own words, or leaves it out."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Needs:
    """A request is what a task is scheduled by; a limit is what it may use. Both are always said: a limit alone becomes the request."""

    cpu: str = "100m"
    cpu_limit: str = "2"
    memory: str = "512M"
    memory_limit: str = "2G"
    scratch: str = ""
    """Most that may lie in $TMPDIR; empty: nobody counts."""
    shared_memory: str = ""
    """Size of /dev/shm, which counts as memory; empty: the container runtime's (64 MB)."""
    accelerator: bool = False
    """Whether the task is faster on a GPU, and goes where GPUs are."""
    timeout: int = 1800
    """Seconds that the task's pod may run."""
    retries: int = 2
    """How often it is started again: safe for every step, since each may be repeated after it was killed anywhere."""
    spot: bool = False
    """Whether the task may go to machines that are taken away at any moment."""
    cache: bool = False
    """Whether it keeps downloads and pretrained weights that the next run can use."""
    image: str = ""
    """Logical image instead of the component's own."""
