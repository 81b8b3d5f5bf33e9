"""What a target is: the fields of its run form, and how it places a task."""

from typing import Any, Protocol

from pipelines.run_form import Parameter
from pipelines.targets.needs import Needs
from pipelines.targets.site import Sharding


class Target(Protocol):
    """One place to run."""

    name: str

    def parameters(self) -> list[Parameter]:
        """The fields of the run form, which are the root parameters of the compiled pipeline."""
        ...

    def run_id(self, form: dict[str, Any]) -> Any:
        """The name of the run's folder in the store: a field of the form, or a placeholder that the backend fills."""
        ...

    def pipeline_options(self) -> dict[str, Any]:
        """Further arguments of KFP's `pipeline` decorator."""
        ...

    def site_settings(self) -> dict[str, Any]:
        """Settings of every run at this site; ingest lays them over the profile."""
        ...

    def place(self, task: Any, step: str, needs: Needs, form: dict[str, Any]) -> None:
        """Apply `needs`, and what the site says of `step`, to a KFP task."""
        ...

    def sharding(self) -> Sharding:
        """Whether and how work is shared out over several pods."""
        ...
