"""What a step's record keeps of a rollout elsewhere: its verdict, its course as tables, and the picture of it."""

from components.core.gate import combine
from components.core.record import StepRecord
from serving.rollout.cluster.state import ClusterRollout
from serving.rollout.endpoint.state import EndpointRollout
from serving.rollout.timeline import EVENT_COLUMNS, METRIC_COLUMNS, draw_timeline, event_rows, metric_rows


def keep_course(record: StepRecord, state: ClusterRollout | EndpointRollout | None, release: str) -> None:
    """Keep the rollout of `release`, finished or not; another one's state (or none) is left out."""
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
