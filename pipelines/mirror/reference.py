"""Names of images as people write them: `[registry/]repository[:tag][@sha256:digest]`.

The grammar is the distribution specification's (opencontainers/distribution-spec, "Pulling manifests"), the short forms are Docker's.
"""

import re
from dataclasses import dataclass, replace

from components.core.errors import UsageError

DOCKER_HUB = "docker.io"
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Reference:
    """One image of one repository; by digest if it has one, else by tag."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest, or the tag."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> "Reference":
        """The same image, pinned."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        """As a person would write it in full."""
        return f"{self.name}{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"


def parse_reference(text: str) -> Reference:
    """The image that `text` names; without tag and digest it is `latest`, without registry it is Docker Hub's. Raises `UsageError`."""
    rest, _, digest = text.partition("@")
    head, colon, tag = rest.rpartition(":")
    # A colon before the last slash is a registry's port.
    name, tag = (head, tag) if colon and "/" not in tag else (rest, "")
    registry, repository = _split(name)
    empty = text.endswith((":", "@"))
    valid = not empty and _HOST.fullmatch(registry) and _REPOSITORY.fullmatch(repository) and (not tag or _TAG.fullmatch(tag))
    if not valid or (digest and not _DIGEST.fullmatch(digest)):
        fix = "Write registry.example.com/team/name:tag, or …/name@sha256:… (64 hexadecimal digits)"
        raise UsageError("is not the name of an image", where=f"'{text}'", fix=fix)
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        # Docker Hub's own images have no owner in their name.
        return first, f"library/{rest}" if first == DOCKER_HUB and "/" not in rest else rest
    return DOCKER_HUB, name if slash else f"library/{name}"
