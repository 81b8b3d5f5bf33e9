"""roll_out_cloud on a cluster: run the state machine up to where the pair can be published, and keep its course in the record."""

from components.core.record import StepRecord
from components.roll_out_cloud.course import keep_course
from serving.rollout.cluster.actions import reader, roll_out
from serving.rollout.cluster.settings import ClusterSettings
from serving.rollout.cluster.state import ClusterRollout


def roll_out_on_cluster(record: StepRecord, release: str, name: str, settings: ClusterSettings) -> None:
    """Bring live traffic to the release; whatever happens, the record holds the rollout's course.

    Raises `RolloutError` if it went back, `ConflictError` if another rollout took over, `DualError` if the cluster can't be reached.
    """
    try:
        keep_course(record, roll_out(record.store, release, name, settings, run_id=record.run_id, say=record.note), release)
    except BaseException:
        keep_course(record, _last(name, settings), release)
        raise


def _last(name: str, settings: ClusterSettings) -> ClusterRollout | None:
    from components.core.errors import DualError

    try:
        return reader(name, settings)[2].read()
    except DualError:
        # The step's own error says what is wrong; the picture of the course is a bonus.
        return None
