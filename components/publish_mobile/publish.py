"""What publish_mobile does: check what is to be published, commit the pair, or take the cloud rollout back."""

from components.core.channel import Channel, read_channel
from components.core.errors import ConflictError, DataError, DualError, RolloutError
from components.core.record import StepRecord
from components.core.release import read_release, verify_release
from components.core.settings import section
from components.core.stores import Store
from components.publish_mobile.publication import publish_release
from components.publish_mobile.settings import PublishMobileSettings
from serving.rollout.labels import abort_rollout
from serving.rollout.servers import close_all, running_servers
from serving.rollout.state import read_rollout, utc_now


def publish(record: StepRecord, *, release: str, settings: str) -> Channel:
    """Make the release the current pair; safe to repeat after a kill at any write.

    Raises `DataError` if the stored release is damaged or too large for devices, `RolloutError` if the cloud half is not rolled out (or
    waited too long), `ConflictError` if another run was faster. In each case the cloud rollout of this run is taken back first.
    """
    options = section(settings, "publish_mobile", PublishMobileSettings)
    try:
        channel = _publish(record.store, release, record.run_id, options)
    except DualError as error:
        _take_back(record, str(error))
        raise
    record.note(f"channel {channel.channel}: sequence {channel.sequence} names release {release}")
    record.data("release", release)
    record.data("channel", channel.model_dump(mode="json", by_alias=True))
    record.metric("size_bytes", channel.mobile.size)
    return channel


def _publish(store: Store, release_id: str, run_id: str, options: PublishMobileSettings) -> Channel:
    release = read_release(store, release_id)
    size = release.mobile_file().size / 1e6
    if size > options.max_megabytes:
        fix = "Choose a smaller mobile model, or raise publish_mobile.max_megabytes if your host accepts it"
        raise DataError(f"model.tflite has {size:.1f} MB, at most {options.max_megabytes:g} are allowed", where=release.folder(), fix=fix)
    if differences := verify_release(store, release_id):
        fix = "Nothing was published; run the pipeline again to make the release anew"
        raise DataError(f"the stored release is damaged: {'; '.join(differences)}", where=store.uri, fix=fix)
    found = read_channel(store)
    if found is not None and found[0].release == release_id:
        return found[0]
    return publish_release(store, release_id, run_id=run_id, after=_rolled_out(store, release_id, run_id))


def _rolled_out(store: Store, release: str, run_id: str) -> int:
    """The channel sequence that this run's rollout started from, if its candidate has the live traffic now."""
    found = read_rollout(store)
    rollout = found[0] if found else None
    if rollout is not None and rollout.is_alive(utc_now()) and (rollout.release, rollout.run_id) != (release, run_id):
        what = f"the rollout of {rollout.release} (run {rollout.run_id}) has superseded this one"
        raise ConflictError(what, where=f"release {release}", fix="Run again once that one is done")
    if rollout is None or rollout.release != release or rollout.phase != "promoted" or not rollout.is_alive(utc_now()):
        state = (
            "never began"
            if rollout is None or rollout.release != release
            else f"is not in force ({rollout.phase}, until {rollout.deadline})"
        )
        raise RolloutError(
            f"the rollout of the cloud half {state}", where=f"release {release}", fix="Run again: both halves are published, or none"
        )
    return rollout.sequence


def _take_back(record: StepRecord, reason: str) -> None:
    servers = running_servers(record.store)
    try:
        rollout = abort_rollout(record.store, servers, run_id=record.run_id, reason=f"the publication failed: {reason}")
    except DualError as error:
        record.warn(f"the rollout was not taken back by this run: {error} Servers fall back by themselves at its deadline.")
        return
    finally:
        close_all(servers)
    if rollout is not None:
        record.warn(f"the cloud rollout of {rollout.release} was taken back: {reason}")
