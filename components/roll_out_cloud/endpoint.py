"""roll_out_cloud on a Vertex endpoint: run the state machine up to where the pair can be published, and keep its course in the record."""

from components.core.record import StepRecord
from components.roll_out_cloud.course import keep_course
from serving.rollout.endpoint.settings import EndpointSettings


def roll_out_on_endpoint(record: StepRecord, release: str, name: str, settings: EndpointSettings) -> None:
    """Bring the endpoint's traffic to the release; whatever happens, the record holds the rollout's course.

    Raises `RolloutError` if it went back, `ConflictError` if another rollout took over, `UsageError` if settings or store can't do,
    `DualError` if Google can't be reached.
    """
    from serving.rollout.endpoint.actions import roll_out
    from serving.rollout.endpoint.state import Book

    try:
        keep_course(record, roll_out(record.store, release, name, settings, run_id=record.run_id, say=record.note), release)
    except BaseException:
        keep_course(record, Book(record.store).read(), release)
        raise
