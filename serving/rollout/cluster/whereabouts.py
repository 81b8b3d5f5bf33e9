"""Where the promoted release's cloud half is served, noted in the store, so that an undo reaches it from the store alone."""

from pydantic import BaseModel, ValidationError

from components.core.stores import Store
from serving.rollout.cluster.settings import ClusterSettings

_NAME = "rollouts/cluster.json"


class Whereabouts(BaseModel):
    """The cluster of a release, as its rollout reached it."""

    release: str
    name: str
    namespace: str
    context: str = ""
    access: str = "direct"

    def settings(self) -> ClusterSettings:
        """Settings that reach the same cluster."""
        return ClusterSettings.model_validate({"namespace": self.namespace, "context": self.context, "access": self.access})


def note(store: Store, release: str, name: str, namespace: str, settings: ClusterSettings) -> None:
    """Write down, before its publication, where a release is served."""
    context, access, before = settings.context, settings.access, _read(store)
    if before is not None and not context and (before.name, before.namespace) == (name, namespace):
        # Who runs inside of the cluster needs no context; the way of a person outside stays known.
        context, access = before.context, before.access
    found = Whereabouts(release=release, name=name, namespace=namespace, context=context, access=access)
    store.put(_NAME, found.model_dump_json(indent=1).encode())


def recall(store: Store, release: str) -> Whereabouts | None:
    """Where that release is served; None if it is not on a cluster (or the note is another release's, or unreadable)."""
    where = _read(store)
    return where if where is not None and where.release == release else None


def _read(store: Store) -> Whereabouts | None:
    found = store.find(_NAME)
    if found is None:
        return None
    try:
        return Whereabouts.model_validate_json(found.data)
    except ValidationError:
        return None
