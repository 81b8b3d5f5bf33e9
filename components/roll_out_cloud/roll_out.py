"""What roll_out_cloud does: run the rollout against the running servers, or against one of its own where none runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from components.core.channel import read_channel
from components.core.gate import combine
from components.core.record import StepRecord
from components.core.settings import section, value
from components.roll_out_cloud.cluster import roll_out_on_cluster
from components.roll_out_cloud.endpoint import roll_out_on_endpoint
from components.roll_out_cloud.pictures import draw_latency
from components.roll_out_cloud.settings import RollOutCloudSettings
from serving.rollout.converge import converge_all
from serving.rollout.labels import LabelRollout, begin_rollout
from serving.rollout.local import desired
from serving.rollout.servers import Server, close_all, running_servers
from serving.rollout.temporary import temporary_server
from serving.rollout.traffic import Traffic


def roll_out(record: StepRecord, *, release: str, settings: str) -> None:
    """Bring live traffic to the release; a release that is current already only has its servers looked after.

    Raises `RolloutError` if the candidate failed its checks (it is unloaded, live traffic never moved), `ConflictError` if another
    rollout took over.
    """
    options = section(settings, "roll_out_cloud", RollOutCloudSettings)
    if options.target == "kubernetes":
        roll_out_on_cluster(record, release, str(value(settings, "name", "classifier")), options.kubernetes)
        return
    if options.target == "vertex":
        roll_out_on_endpoint(record, release, str(value(settings, "name", "classifier")), options.vertex)
        return
    channel = read_channel(record.store)
    with _servers(record, str(value(settings, "name", "classifier")), options) as servers:
        if channel is not None and channel[0].release == release:
            _look_after(record, servers, options)
            return
        machine = begin_rollout(record.store, release, record.run_id, servers=servers, settings=options, say=record.note)
        try:
            machine.run()
        finally:
            _keep(record, machine)


def _look_after(record: StepRecord, servers: list[Server], options: RollOutCloudSettings) -> None:
    for problem in converge_all(record.store, servers, desired(record.store), options.load_timeout):
        record.warn(problem)
    record.note("the channel names this release already; nothing to roll out")


@contextmanager
def _servers(record: StepRecord, name: str, options: RollOutCloudSettings) -> Iterator[list[Server]]:
    servers = running_servers(record.store)
    try:
        if servers:
            record.note(f"{len(servers)} running server(s) follow this store")
            yield servers
            return
        record.note("no server follows this store: one is started for the checks and stopped after them")
        with temporary_server(name, timeout=options.load_timeout) as server:
            yield [server]
    finally:
        close_all(servers)


def _keep(record: StepRecord, machine: LabelRollout) -> None:
    rollout = machine.rollout
    record.data("rollout", rollout.model_dump(mode="json", by_alias=True))
    record.table("Time line", ["time (UTC)", "phase", "what happened"], [[e.at, e.phase, e.text] for e in rollout.events])
    if not machine.candidate.sent:
        return
    record.verdict(combine("roll_out_cloud", rollout.checks, rollout.stable))
    traffic = {"candidate": machine.candidate} | ({"stable": machine.stable} if rollout.stable else {})
    record.table("Replayed traffic", ["version", "requests", "errors", "p50 ms", "p99 ms"], [_row(n, t) for n, t in traffic.items()])
    if not machine.candidate.samples:
        return
    record.metric("latency_p50_ms", machine.candidate.latency(0.5))
    record.metric("latency_p99_ms", machine.candidate.latency(0.99))
    record.picture("latency", draw_latency(traffic), "Latency of each replayed request, candidate beside the running version")


def _row(name: str, traffic: Traffic) -> list[str | float | int | None]:
    quantiles = [traffic.latency(0.5), traffic.latency(0.99)] if traffic.samples else [None, None]
    return [name, traffic.sent, len(traffic.errors), *quantiles]
