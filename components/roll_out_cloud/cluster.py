"""roll_out_cloud on a cluster: run the state machine up to where the pair can be published, and keep its course in the record."""

from components.core.gate import combine
from components.core.record import StepRecord
from serving.rollout.cluster.actions import reader, roll_out
from serving.rollout.cluster.settings import ClusterSettings
from serving.rollout.cluster.state import ClusterRollout
from serving.rollout.timeline import EVENT_COLUMNS, METRIC_COLUMNS, draw_timeline, event_rows, metric_rows


def roll_out_on_cluster(record: StepRecord, release: str, name: str, settings: ClusterSettings) -> None:
    """Bring live traffic to the release; whatever happens, the record holds the rollout's course.

    Raises `RolloutError` if it went back, `ConflictError` if another rollout took over, `DualError` if the cluster can't be reached.
    """
    try:
        _keep(record, roll_out(record.store, release, name, settings, run_id=record.run_id, say=record.note), release)
    except BaseException:
        _keep(record, _last(name, settings), release)
        raise


def _last(name: str, settings: ClusterSettings) -> ClusterRollout | None:
    from components.core.errors import DualError

    try:
        return reader(name, settings)[2].read()
    except DualError:
        # The step's own error says what is wrong; the picture of the course is a bonus.
        return None


def _keep(record: StepRecord, state: ClusterRollout | None, release: str) -> None:
    if state is None or state.candidate.release != release:
        return
    record.data("rollout", state.model_dump(mode="json", by_alias=True))
    if state.checks:
        record.verdict(combine("roll_out_cloud", state.checks, state.stable.release if state.stable else ""))
    record.metric("weight_achieved", state.achieved)
    record.table("Time line", EVENT_COLUMNS, event_rows(state.events))
    if state.measurements:
        record.table("Analysis", METRIC_COLUMNS, metric_rows(state.measurements))
    record.picture("timeline", draw_timeline(state.events, state.measurements), "The course of the rollout: phases, weights, both versions")
