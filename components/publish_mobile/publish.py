"""What publish_mobile does: check what is to be published, commit the pair, or take the cloud rollout back."""

from collections.abc import Callable

from components.core.channel import Channel, read_channel
from components.core.errors import DataError, DualError
from components.core.record import StepRecord
from components.core.release import read_release, verify_release
from components.core.settings import section, value
from components.core.staging import basis_points
from components.core.stores import Store
from components.publish_mobile.cloud_half import CloudHalf, ClusterHalf, EndpointHalf, LocalHalf
from components.publish_mobile.firebase import NOTICE
from components.publish_mobile.firebase_ml import host_model
from components.publish_mobile.publication import check_signing, publish_release
from components.publish_mobile.remote_config import ring
from components.publish_mobile.settings import PublishMobileSettings
from components.publish_mobile.signing import Signing, find_signing, signing_as
from components.publish_mobile.start import check_size
from components.roll_out_cloud.settings import RollOutCloudSettings


def publish(record: StepRecord, *, release: str, settings: str) -> Channel:
    """Make the release the current pair; safe to repeat after a kill at any write.

    Raises `DataError` if the stored release is damaged or too large for devices, `RolloutError` if the cloud half is not rolled out (or
    waited too long), `ConflictError` if another run was faster. In each case the cloud rollout of this run is taken back first.
    """
    options = section(settings, "publish_mobile", PublishMobileSettings)
    cloud = _cloud_half(record, settings)
    # A pod's own folder ends with the pod: a key that was made there would sign once.
    with signing_as(options.signing, options.key_files, None if isinstance(cloud, LocalHalf) else False):
        return _publish_or_take_back(record, release, options, cloud)


def check_publication(store: Store, settings: str) -> None:
    """Raise `UsageError` or `DataError` now if a run with these settings could not sign what it is to publish in the end."""
    options = section(settings, "publish_mobile", PublishMobileSettings)
    here = section(settings, "roll_out_cloud", RollOutCloudSettings).target == "local"
    with signing_as(options.signing, options.key_files, None if here else False):
        check_signing(store, change=False)


def _publish_or_take_back(record: StepRecord, release: str, options: PublishMobileSettings, cloud: CloudHalf) -> Channel:
    try:
        signing = _signing(record)
        channel = _publish(record.store, release, record.run_id, options, cloud, signing)
    except DualError as error:
        _take_back(record, cloud, str(error))
        raise
    share = channel.staging.percent()
    record.note(f"channel {channel.channel}: sequence {channel.sequence} names release {release} for {share} of the devices")
    record.data("release", release)
    record.data("channel", channel.model_dump(mode="json", by_alias=True))
    record.metric("size_bytes", channel.mobile.size)
    cloud.finish(release, record.run_id)
    _tell_firebase(record, channel, options)
    return channel


def _tell_firebase(record: StepRecord, channel: Channel, options: PublishMobileSettings) -> None:
    """The pair is committed: what fails here is said, and repeated by hand, and takes nothing back."""
    hosted, bell = options.firebase_ml, options.remote_config
    if hosted.project:
        record.warn(NOTICE)
        _try(record, "dual publish firebase-ml", lambda: host_model(record.store, channel, project=hosted.project, name=hosted.name))
    if bell.project:
        _try(record, "dual publish remote-config", lambda: ring(channel, project=bell.project, parameter=bell.parameter))


def _try(record: StepRecord, command: str, action: Callable[[], object]) -> None:
    try:
        record.note(f"{command.removeprefix('dual publish ')}: {action()}")
    except DualError as error:
        record.warn(f"{error} The pair is published; repeat this with: {command}")


def _cloud_half(record: StepRecord, settings: str) -> CloudHalf:
    options = section(settings, "roll_out_cloud", RollOutCloudSettings)
    if options.target == "kubernetes":
        return ClusterHalf(record.store, str(value(settings, "name", "classifier")), options.kubernetes, record.note)
    if options.target == "vertex":
        return EndpointHalf(record.store, record.note)
    return LocalHalf(record.store)


def _signing(record: StepRecord) -> Signing:
    signing = find_signing(record.store)
    if signing.signers:
        record.note(f"the channel is {signing.note}")
    else:
        record.warn(f"the channel is {signing.note}")
    return signing


def _publish(store: Store, release_id: str, run_id: str, options: PublishMobileSettings, cloud: CloudHalf, signing: Signing) -> Channel:
    release = read_release(store, release_id)
    check_size(release.mobile_file().size, release.folder(), options)
    if differences := verify_release(store, release_id):
        fix = "Nothing was published; run the pipeline again to make the release anew"
        raise DataError(f"the stored release is damaged: {'; '.join(differences)}", where=store.uri, fix=fix)
    found = read_channel(store)
    if found is not None and found[0].release == release_id:
        return found[0]
    after = cloud.in_force(release_id, run_id)
    return publish_release(store, release_id, run_id=run_id, after=after, basis_points=basis_points(options.percent), signing=signing)


def _take_back(record: StepRecord, cloud: CloudHalf, reason: str) -> None:
    try:
        taken = cloud.take_back(record.run_id, f"the publication failed: {reason}")
    except DualError as error:
        record.warn(f"the rollout was not taken back by this run: {error} {cloud.otherwise}")
        return
    if taken:
        record.warn(f"the cloud rollout of {taken} was taken back: {reason}")
