"""Publishing a release by hand: checked as the pipeline checks it, for a share of the devices, where no cluster has to move first."""

from components.core.channel import STABLE, Channel, read_channel
from components.core.errors import ConflictError, DataError, UsageError
from components.core.release import list_releases, read_release, verify_release
from components.core.stores import Store
from components.publish_mobile.publication import publish_release
from components.publish_mobile.settings import PublishMobileSettings
from components.publish_mobile.signing import Signing
from serving.rollout.cluster.whereabouts import recall
from serving.rollout.endpoint.state import served_release
from serving.rollout.state import read_rollout, utc_now


def start(
    store: Store,
    release_id: str,
    basis_points: int,
    *,
    run_id: str,
    limits: PublishMobileSettings,
    signing: Signing | None = None,
    channel: str = STABLE,
) -> Channel:
    """Make a release (default: the newest) the current pair, its mobile half for a share of the devices; the channel.

    Running servers that follow the store take the cloud half at once, without a canary; in another channel than stable nothing is moved but
    the mobile half. Raises `UsageError` if it is current already, or
    if the pair is served on a cluster, whose live traffic must move first; `DataError` if its stored files are damaged or too large;
    `ConflictError` if another release's cloud half is being rolled out.
    """
    found = read_channel(store, channel)
    current = found[0] if found else None
    release = read_release(store, release_id or _newest(store))
    if current is not None and current.release == release.id:
        fix = "Give it to more devices with `dual publish widen`, or start another release"
        raise UsageError(f"{release.id} is current already ({current.staging.percent()})", where=store.uri, fix=fix)
    if channel == STABLE:
        _require_free(store, current, release.id)
    check_size(release.mobile_file().size, release.folder(), limits)
    if differences := verify_release(store, release.id):
        fix = "Nothing was published; run the pipeline again to make the release anew"
        raise DataError(f"the stored release is damaged: {'; '.join(differences)}", where=store.uri, fix=fix)
    after = current.sequence if current else 0
    return publish_release(store, release.id, run_id=run_id, after=after, basis_points=basis_points, signing=signing, channel=channel)


def check_size(size: int, where: str, limits: PublishMobileSettings) -> None:
    """Refuse a .tflite that devices' hosts refuse; `DataError` says by how much."""
    if size / 1e6 > limits.max_megabytes:
        fix = "Choose a smaller mobile model, or raise publish_mobile.max_megabytes if your host accepts it"
        raise DataError(f"model.tflite has {size / 1e6:.1f} MB, at most {limits.max_megabytes:g} are allowed", where=where, fix=fix)


def _newest(store: Store) -> str:
    releases = list_releases(store)
    if not releases:
        raise UsageError("the store has no release", where=store.uri, fix="Make one with: dual run --data SOURCE --store STORE")
    return releases[-1].id


def _require_free(store: Store, channel: Channel | None, release_id: str) -> None:
    if channel is not None and (where := recall(store, channel.release)) is not None:
        what = f"the cloud half of {channel.release} is served on Kubernetes (namespace {where.namespace}), and the pair moves as a whole"
        fix = f"Run: DUAL_PUBLISH_MOBILE__PERCENT=5 dual rollout start {release_id} --namespace {where.namespace}"
        raise UsageError(what, where=store.uri, fix=fix)
    if channel is not None and served_release(store) == channel.release:
        what = f"the cloud half of {channel.release} is served on a Vertex endpoint, and the pair moves as a whole"
        fix = f"Run: DUAL_PUBLISH_MOBILE__PERCENT=5 dual rollout start {release_id} --target vertex"
        raise UsageError(what, where=store.uri, fix=fix)
    rollout = read_rollout(store)
    if rollout is not None and rollout[0].is_alive(utc_now()) and rollout[0].release != release_id:
        what = f"the cloud half of {rollout[0].release} is being rolled out until {rollout[0].deadline}"
        raise ConflictError(what, where=store.uri, fix="Start when that run is over")
