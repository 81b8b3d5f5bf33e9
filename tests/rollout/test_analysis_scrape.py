"""Windows of the servers' own counters: golden numbers, restarts, and quantiles as PromQL gives them."""

import math
from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import DualError
from serving.rollout.analysis.pods import DirectAccess, UnreachableError
from serving.rollout.analysis.scrape import (
    CLIENT_FAULTS,
    Scraper,
    Window,
    bucket_quantile,
    difference,
    merged,
    read_counters,
    scrape,
)
from serving.server.metrics import Metrics
from serving.server.status import Code
from tests.rollout.fake_pod import MODEL, FakePod
from tests.rollout.web import Reply, unused_port

PAGE = """# HELP :tensorflow:serving:request_count whatever
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="flowers",status="OK"} 90
:tensorflow:serving:request_count{model_name="flowers",status="INTERNAL"} 6
:tensorflow:serving:request_count{model_name="flowers",status="INVALID_ARGUMENT"} 4
:tensorflow:serving:request_count{model_name="other",status="INTERNAL"} 1000
# TYPE :tensorflow:serving:request_latency histogram
:tensorflow:serving:request_latency_bucket{model_name="flowers",API="predict",entrypoint="REST",le="1000"} 40
:tensorflow:serving:request_latency_bucket{model_name="flowers",API="predict",entrypoint="REST",le="2000"} 60
:tensorflow:serving:request_latency_bucket{model_name="flowers",API="predict",entrypoint="REST",le="+Inf"} 60
:tensorflow:serving:request_latency_bucket{model_name="flowers",API="predict",entrypoint="GRPC",le="1000"} 10
:tensorflow:serving:request_latency_bucket{model_name="flowers",API="predict",entrypoint="GRPC",le="2000"} 30
:tensorflow:serving:request_latency_bucket{model_name="flowers",API="predict",entrypoint="GRPC",le="+Inf"} 30
:tensorflow:serving:request_latency_sum{model_name="flowers",API="predict",entrypoint="GRPC"} 30000
some_other_metric{label="a \\"quoted\\" } brace",other="back\\\\slash"} 1.5e3 1395066363000

go_goroutines 7
"""


def counters(**requests: int) -> Window:
    return Window(requests=requests)


def test_a_page_in_golden_numbers() -> None:
    window = difference({}, read_counters(PAGE, "flowers"))
    assert window.requests == {"OK": 90, "INTERNAL": 6, "INVALID_ARGUMENT": 4}
    assert window.errors() == {"INTERNAL": 6}
    assert window.error_rate() == 0.06
    assert window.buckets == {1000: 50, 2000: 90, math.inf: 90}
    # Rank 45 of 90 lies in the first bucket: 0 + 1000 µs · 45/50; rank 89.1 in the second: 1000 + 1000 · 39.1/40.
    assert window.latency_ms(0.5) == pytest.approx(0.9)
    assert window.latency_ms(0.99) == pytest.approx(1.9775)


@pytest.mark.parametrize("status", [code.name for code in Code])
def test_every_status_is_the_clients_fault_or_the_servers(status: str) -> None:
    rate = counters(OK=3, **{status: 1}).error_rate() if status != "OK" else 0.0
    assert rate == (0 if status in CLIENT_FAULTS or status == "OK" else 0.25)


def test_the_servers_faults_are_these() -> None:
    servers = {code.name for code in Code} - CLIENT_FAULTS - {"OK"}
    assert servers == {
        *("UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "UNIMPLEMENTED", "INTERNAL"),
        *("UNAVAILABLE", "DATA_LOSS"),
    }
    assert counters(SOMETHING_NEW=1).error_rate() == 1


def test_no_requests_are_no_data() -> None:
    empty = Window()
    assert math.isnan(empty.error_rate())
    assert math.isnan(empty.latency_ms(0.99))
    page = read_counters(PAGE, "flowers")
    assert math.isnan(difference(page, page).error_rate())


def test_a_counter_that_went_down_or_is_gone_means_a_restart() -> None:
    before = read_counters(PAGE, "flowers")
    fewer = read_counters(PAGE.replace('status="OK"} 90', 'status="OK"} 5'), "flowers")
    gone = {series: value for series, value in before.items() if ("status", "INTERNAL") not in series[1]}
    assert difference(before, fewer, "a") == Window(
        {"OK": 5, "INTERNAL": 6, "INVALID_ARGUMENT": 4}, {1000: 50, 2000: 90, math.inf: 90}, ("a",)
    )
    assert difference(before, gone, "a").requests == {"OK": 90, "INVALID_ARGUMENT": 4}
    assert difference(before, {}, "a") == Window({}, {}, ("a",))


@pytest.mark.parametrize(
    "line",
    [
        "<html>",
        ':tensorflow:serving:request_count{model_name="flowers"} many',
        ':tensorflow:serving:request_count{model_name="flowers"} NaN',
        ":tensorflow:serving:request_count{model_name} 1",
        ':tensorflow:serving:request_latency_bucket{model_name="flowers",le="high"} 1',
        ':tensorflow:serving:request_latency_bucket{model_name="flowers"} 1',
    ],
)
def test_a_malformed_page_is_an_error_that_says_where(line: str) -> None:
    with pytest.raises(DualError, match=r"pod a: (line 3 of its metrics is no sample|has a latency bucket without a bound)"):
        read_counters(f"# TYPE x counter\nx 1\n{line}\n", "flowers", where="pod a")


def test_labels_are_read_as_the_server_escapes_them() -> None:
    metrics, name = Metrics(), 'a "name",\nwith \\n and } in it'
    metrics.requested(name, Code.OK, api="predict", entrypoint="REST", seconds=0.01)
    assert difference({}, read_counters(metrics.page(), name)).requests == {"OK": 1}


# Requests of a server's life: a latency in microseconds, or None for one that failed.
lives = st.lists(st.one_of(st.none(), st.floats(1, 1e7)), max_size=12)
histories = st.lists(st.tuples(lives, st.booleans()), min_size=1, max_size=6)


@settings(deadline=None)
@given(histories)
def test_windows_of_a_server_add_up_to_what_it_served(history: list[tuple[list[float | None], bool]]) -> None:
    """Each scrape's window holds exactly the requests since the last one, unless a restart hides behind higher counters."""
    metrics, pages, served = Metrics(), [read_counters(Metrics().page(), MODEL)], []
    for requests, restarted in history:
        if restarted:
            metrics = Metrics()
        for latency in requests:
            code = Code.OK if latency is not None else Code.UNAVAILABLE
            metrics.requested(MODEL, code, api="predict", entrypoint="REST", seconds=(latency or 0.0) / 1e6)
        pages.append(read_counters(metrics.page(), MODEL))
        served.append(requests)
    for (before, after), requests, (_, restarted) in zip(pairwise(pages), served, history, strict=True):
        window = difference(before, after, "a")
        hidden = restarted and not window.restarted
        assert hidden or window.total() == len(requests)
        assert hidden or window.errors().get("UNAVAILABLE", 0) == requests.count(None)
        assert hidden or window.buckets.get(math.inf, 0) == len(requests) - requests.count(None)
        # What is hidden is only ever undercounted, never invented.
        assert window.total() <= len(requests)


bounds = [10 * 1.8**power for power in range(33)]
latencies = st.lists(st.floats(0.1, 1e8), min_size=1, max_size=60)
quantiles = st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0])


def histogram(values: list[float]) -> dict[float, float]:
    return {bound: float(sum(value <= bound for value in values)) for bound in [*bounds, math.inf]}


@settings(deadline=None)
@given(latencies, quantiles)
def test_a_quantile_lies_in_the_bucket_of_the_real_one(values: list[float], quantile: float) -> None:
    found = bucket_quantile(quantile, histogram(values))
    real = sorted(values)[max(0, math.ceil(quantile * len(values) - 1e-12) - 1)]
    at = bisect_left(bounds, real)
    low, high = (bounds[at - 1] if at else 0.0), (bounds[at] if at < len(bounds) else bounds[-1])
    assert min(low, high) <= found <= high * (1 + 1e-12)


@settings(deadline=None)
@given(st.lists(latencies, min_size=1, max_size=5), quantiles)
def test_pods_together_are_one_server(pods: list[list[float]], quantile: float) -> None:
    together = merged([Window({"OK": len(values)}, histogram(values)) for values in pods])
    everything = [value for values in pods for value in values]
    assert together.total() == len(everything)
    assert bucket_quantile(quantile, together.buckets) == bucket_quantile(quantile, histogram(everything))


@pytest.mark.parametrize(
    ("quantile", "buckets", "found"),
    [
        # From the comments and branches of promql/quantile.go, worked out by hand.
        (0.5, {1: 10, 2: 20, math.inf: 20}, 1.0),
        (0.75, {1: 10, 2: 20, math.inf: 20}, 1.5),
        (0.25, {1: 10, 2: 20, math.inf: 20}, 0.5),
        (0.99, {1: 10, 2: 20, math.inf: 100}, 2),
        (1.0, {1: 10, 2: 20, 4: 20, math.inf: 20}, 2),
        (0.9, {1: 10, 2: 8, 4: 20, math.inf: 20}, 3.6),
        (0.5, {1: 0, 2: 0, 4: 8, math.inf: 8}, 3),
    ],
)
def test_quantiles_by_hand(quantile: float, buckets: dict[float, float], found: float) -> None:
    assert bucket_quantile(quantile, buckets) == pytest.approx(found)


@pytest.mark.parametrize("buckets", [{}, {math.inf: 3}, {1: 3, 2: 3}, {1: 0, math.inf: 0}])
def test_what_is_no_histogram_has_no_quantile(buckets: dict[float, float]) -> None:
    assert math.isnan(bucket_quantile(0.99, buckets))


def test_windows_of_a_running_pod() -> None:
    with FakePod() as pod:
        access, scraper = DirectAccess(pod.target, MODEL), Scraper(MODEL)
        pod.count(times=1000)
        scraper.begin(pod.target, access)
        pod.count(times=8, seconds=0.020)
        pod.count(Code.UNAVAILABLE, times=2)
        pod.count(Code.INTERNAL, times=99, model="another")
        window = scraper.window(pod.target, access)
        assert (window.requests, window.restarted) == ({"OK": 8, "UNAVAILABLE": 2}, ())
        assert window.error_rate() == 0.2
        # 20 ms lies in the bucket from 11.57 to 20.82 ms, in which all 8 are taken as evenly spread.
        assert window.latency_ms(0.5) == pytest.approx((10 * 1.8**12 + (10 * 1.8**13 - 10 * 1.8**12) * 0.5) / 1000, rel=1e-5)
        pod.restart()
        pod.count(times=3)
        again = scraper.window(pod.target, access)
        assert (again.requests, again.restarted) == ({"OK": 3}, ("canary-1",))
        access.close()


def test_a_pod_that_comes_late_begins_its_window_then() -> None:
    with FakePod() as pod:
        access, scraper = DirectAccess(pod.target, MODEL), Scraper(MODEL)
        pod.count(Code.INTERNAL, times=50)
        with pytest.raises(DualError, match="could not be measured when the window began"):
            scraper.window(pod.target, access)
        pod.count(times=5)
        assert scraper.window(pod.target, access).requests == {"OK": 5, "INTERNAL": 0}
        scraper.keep([])
        pod.count(Code.INTERNAL)
        scraper.begin(pod.target, access)
        assert scraper.window(pod.target, access).total() == 0
        access.close()


def test_after_a_failed_scrape_the_next_window_covers_both() -> None:
    with FakePod() as pod:
        access, scraper = DirectAccess(pod.target, MODEL), Scraper(MODEL)
        scraper.begin(pod.target, access)
        pod.count(times=4)
        page, pod.page = pod.page, lambda: Reply("busy", 503)
        with pytest.raises(DualError, match="answered 503: busy"):
            scraper.window(pod.target, access)
        pod.page = page
        pod.count(times=3)
        assert scraper.window(pod.target, access).total() == 7
        access.close()


def test_a_server_without_metrics_is_told_what_flag_is_missing() -> None:
    with FakePod() as pod:
        pod.page = lambda: Reply("Not found", 404)
        with pytest.raises(
            DualError, match=r"pod canary-1 at 127.0.0.1:\d+: has no metrics. Start TF Serving with --monitoring_config_file"
        ):
            scrape(DirectAccess(pod.target, MODEL), pod.target, MODEL)


def test_a_pod_at_which_nothing_listens_is_unreachable() -> None:
    with FakePod() as pod:
        target = pod.target
    gone = type(target)("gone", "127.0.0.1", unused_port(), 0, "new")
    with pytest.raises(UnreachableError, match=r"pod gone at 127.0.0.1:\d+: can't be reached"):
        scrape(DirectAccess(gone, MODEL), gone, MODEL)


def test_scrapes_use_one_connection() -> None:
    with FakePod() as pod:
        access = DirectAccess(pod.target, MODEL)
        for _ in range(5):
            scrape(access, pod.target, MODEL)
        assert len({asked.connection for asked in pod.asked}) == 1
        access.close()
