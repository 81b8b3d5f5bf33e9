"""What a run costs: prices with their sources, arithmetic that was done by hand, and nothing guessed."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from components.core.errors import UsageError
from components.core.machine import UNKNOWN_GPU, Machine, this_machine
from components.core.record import Record
from components.core.stores import open_store
from components.cost.amount import Range, figure
from components.cost.estimate import Asked, estimate, step_times
from components.cost.prices import Hardware, Place, Prices, load_prices, model_name
from components.cost.run import cost_of_run
from components.cost.savings import Server, savings
from components.report.page import render
from components.report.settings import ReportSettings
from components.report.story import ORDER as STEPS
from pipelines.cli import cli

HERE = Place()
SMALL = Machine(cpus=2, memory_gib=7.7)
ORDER = ("train_cloud", "compare_pair", "validate_infra")
TABLE: Any = yaml.safe_load("""
schema: dual.prices/v1
currency: EUR
sources:
  bill: {url: https://example.com/prices, seen: 2026-11-01}
  old: {url: https://example.com/x, seen: 2020-01-01}
spot: {largest_discount: 0.75, source: bill}
machines:
  - {name: two, service: compute, region: us-central1, cpus: 2, memory_gib: 8, per_hour: 0.36, source: bill}
  - {name: eight, service: compute, region: us-central1, cpus: 8, memory_gib: 32, per_hour: 1.8, takes: [T4], source: bill}
  - {name: held, service: compute, region: us-central1, cpus: 8, memory_gib: 32, per_hour: 3.6, holds: {L4: 1}, source: old}
  - {name: vee, service: vertex, region: us-central1, cpus: 4, memory_gib: 16, per_hour: 0.72, source: bill}
accelerators:
  - {name: T4, service: compute, region: us-central1, per_hour: 0.9, source: bill}
fees:
  - {name: run, service: vertex, per_run: 0.5, source: bill}
""")


@pytest.fixture
def prices() -> Prices:
    return Prices.model_validate(TABLE)


def record(step: str, seconds: float, machine: Machine | None = SMALL, **more: Any) -> Record:
    return Record(step=step, status="succeeded", started="2026-11-20T10:00:00+00:00", seconds=seconds, machine=machine, **more)


def bounds(amount: Range | None) -> tuple[float, float, float]:
    assert amount is not None
    return amount.low, amount.likely, amount.high


def test_every_embedded_price_has_a_source_and_a_date_that_is_past() -> None:
    table = load_prices()
    for name, source in table.sources.items():
        assert source.url.startswith("https://"), name
        assert source.seen <= date.today(), name
        assert source.note, name
    assert {entry.source for entry in [*table.machines, *table.accelerators, *table.fees]} <= set(table.sources)


def test_the_embedded_e2_machines_are_the_catalogue_rates_times_their_size() -> None:
    for machine in load_prices().machines:
        if machine.service == "compute" and machine.name.startswith("e2-standard"):
            assert machine.per_hour == pytest.approx(machine.cpus * 0.02181159 + machine.memory_gib * 0.00292353, rel=1e-9), machine.name


@pytest.mark.parametrize(
    ("asked", "machine", "price"),
    [
        (Hardware(cpus=1, memory_gib=2), "two", 0.36),
        (Hardware(cpus=2, memory_gib=8.1), "eight", 1.8),
        (Hardware(cpus=8, memory_gib=16, accelerator="any", count=1), "eight + 1 x T4", 2.7),
        (Hardware(cpus=8, memory_gib=16, accelerator="NVIDIA_TESLA_T4", count=2), "eight + 2 x T4", 3.6),
        (Hardware(cpus=8, memory_gib=16, accelerator="NVIDIA L4", count=1), "held", 3.6),
    ],
)
def test_the_cheapest_machine_that_is_large_enough_is_priced(prices: Prices, asked: Hardware, machine: str, price: float) -> None:
    offer = prices.offer(asked, HERE)
    assert offer.per_hour is not None
    assert (offer.machine, offer.per_hour.likely) == (machine, pytest.approx(price))


@pytest.mark.parametrize(
    ("asked", "place", "words"),
    [
        (Hardware(cpus=9, memory_gib=1), HERE, "9 cores"),
        (Hardware(cpus=1, memory_gib=1, accelerator="NVIDIA A100", count=1), HERE, "A100"),
        (Hardware(cpus=1, memory_gib=1, accelerator="L4", count=2), HERE, "2 x L4"),
        (Hardware(cpus=1, memory_gib=1), Place(region="mars-east1"), "mars-east1"),
        (Hardware(cpus=1, memory_gib=1, accelerator=UNKNOWN_GPU, count=1), HERE, UNKNOWN_GPU),
    ],
)
def test_what_has_no_price_is_not_known_and_says_why(prices: Prices, asked: Hardware, place: Place, words: str) -> None:
    offer = prices.offer(asked, place)
    assert offer.per_hour is None
    assert words in offer.why


def test_a_spot_price_is_a_range_up_to_the_list_price(prices: Prices) -> None:
    offer = prices.offer(Hardware(cpus=1, memory_gib=1), Place(spot=True))
    assert bounds(offer.per_hour) == pytest.approx((0.09, 0.36, 0.36))


def test_accelerators_are_the_same_by_whatever_name() -> None:
    names = ["NVIDIA_TESLA_T4", "nvidia-tesla-t4", "Tesla T4", "T4"]
    assert {model_name(name) for name in names} == {"t4"}
    assert model_name("NVIDIA A100-SXM4-40GB") != model_name("NVIDIA_TESLA_A100_80GB")


def test_a_run_costs_its_seconds_times_the_price_of_what_each_step_was_given(prices: Prices) -> None:
    gpu = Machine(cpus=8, memory_gib=30, accelerators={"Tesla T4": 1})
    records = {each.step: each for each in (record("train_cloud", 600, gpu), record("compare_pair", 50))}
    cost = cost_of_run(records, ORDER, prices, HERE)
    # 600 s of 2.70 an hour, 50 s of 0.36 an hour.
    assert [step.cost.likely for step in cost.steps if step.cost] == [pytest.approx(0.45), pytest.approx(0.005)]
    assert cost.total.likely == pytest.approx(0.455)
    assert (cost.unknown, cost.currency, cost.seen) == ([], "EUR", "2026-11-01")


def test_a_step_without_a_price_makes_the_total_a_lower_bound(prices: Prices) -> None:
    records = {each.step: each for each in (record("train_cloud", 600, None), record("compare_pair", 50))}
    cost = cost_of_run(records, ORDER, prices, HERE)
    assert cost.unknown == ["train_cloud"]
    assert "does not say on what machine" in cost.steps[0].why
    assert cost.total.likely == pytest.approx(0.005)


def test_workers_on_machines_of_their_own_are_no_part_of_what_is_known(prices: Prices) -> None:
    cost = cost_of_run({"train_cloud": record("train_cloud", 600, data={"workers_elsewhere": 4})}, ORDER, prices, HERE)
    assert (cost.unknown, "4 workers trained on machines of their own" in cost.steps[0].why) == (["train_cloud"], True)


def test_vertex_adds_its_fee_and_ones_own_price_knows_none(prices: Prices) -> None:
    records = {"compare_pair": record("compare_pair", 100)}
    there = Place(service="vertex")
    assert cost_of_run(records, ORDER, prices, there).total.likely == pytest.approx(0.5 + 0.02)
    assert cost_of_run(records, ORDER, prices, there, own=3.6).total.likely == pytest.approx(0.1)


def test_an_old_price_is_warned_of_where_it_is_used(prices: Prices) -> None:
    gpu = Machine(cpus=8, memory_gib=30, accelerators={"NVIDIA L4": 1})
    (warning,) = cost_of_run({"train_cloud": record("train_cloud", 1, gpu)}, ORDER, prices, HERE).warnings
    assert "https://example.com/x" in warning
    assert cost_of_run({"compare_pair": record("compare_pair", 1)}, ORDER, prices, HERE).warnings == []


def test_a_price_is_old_the_day_after_its_limit(prices: Prices) -> None:
    seen = prices.sources["bill"].seen
    assert prices.stale({"bill"}, seen + timedelta(days=180)) == []
    assert len(prices.stale({"bill"}, seen + timedelta(days=181))) == 1


def test_an_estimate_is_the_median_of_the_last_runs_with_its_range(prices: Prices) -> None:
    runs = [{"compare_pair": record("compare_pair", seconds)} for seconds in (100, 200, 600)]
    asked = {"compare_pair": Asked(hardware=Hardware(cpus=1, memory_gib=1), retries=2)}
    (step,) = estimate(step_times(runs), asked, prices, HERE).steps
    # 0.36 an hour: 0.0001 a second. Upper bound: the slowest, three times.
    assert bounds(step.cost) == pytest.approx((0.01, 0.02, 0.18))


def test_an_estimate_counts_neither_cached_nor_failed_steps() -> None:
    cached, broken = record("ingest", 1, cached=True), record("ingest", 2)
    broken.status = "failed"
    assert step_times([{"ingest": cached}, {"ingest": broken}, {"ingest": record("ingest", 3)}]) == {"ingest": [3]}


def test_a_step_that_never_ran_has_no_estimate(prices: Prices) -> None:
    asked = {"ingest": Asked(hardware=Hardware(cpus=1, memory_gib=1))}
    cost = estimate({}, asked, prices, HERE)
    assert (cost.unknown, cost.total.likely) == (["ingest"], 0)


def test_only_steps_that_may_go_to_spot_machines_get_a_spot_price(prices: Prices) -> None:
    hardware = Hardware(cpus=1, memory_gib=1)
    asked = {"ingest": Asked(hardware=hardware, spot=True), "report": Asked(hardware=hardware)}
    ingest, report = estimate({"ingest": [10], "report": [10]}, asked, prices, HERE).steps
    assert ingest.cost is not None
    assert report.cost is not None
    assert ingest.cost.low == pytest.approx(ingest.cost.high / 4)
    assert report.cost.low == report.cost.high


def real_run() -> dict[str, Record]:
    """What a run of the whole pipeline on small drawn images left, on a machine of two cores (tests/e2e/test_run.py)."""
    content = json.loads(Path(__file__).with_name("cost_run.json").read_text())
    return {each["step"]: Record.model_validate(each) for each in content}


def test_a_real_run_costs_its_seconds_on_the_smallest_machine_that_has_its_memory() -> None:
    records = real_run()
    cost = cost_of_run(records, STEPS, load_prices(), HERE)
    assert {step.machine for step in cost.steps} == {"e2-standard-8"}, "two cores, but 23.5 GiB"
    seconds = sum(record.seconds for record in records.values())
    assert cost.total.likely == pytest.approx(seconds / 3600 * 0.26804568)
    assert 0.03 < cost.total.likely < 0.06
    assert (cost.unknown, len(cost.steps)) == ([], 13)


def test_a_real_runs_savings_are_of_its_own_measurements() -> None:
    records = real_run()
    saved = savings(records, load_prices(), HERE, Server())
    assert saved is not None
    assert saved.saved is not None
    latency = records["validate_infra"].metrics["cloud_p50_ms"]
    share = records["compare_pair"].metrics["expected_cloud_share"]
    assert saved.saved.likely == pytest.approx((1 - share) * 0.26804568 / 3600 * latency / 0.7)


def policy_run(**metrics: float) -> dict[str, Record]:
    infra = {"cloud_p50_ms": 20.0}
    return {"compare_pair": record("compare_pair", 1, metrics=metrics), "validate_infra": record("validate_infra", 1, metrics=infra)}


def test_savings_by_hand(prices: Prices) -> None:
    saved = savings(policy_run(cloud_share=0.5, expected_cloud_share=0.25), prices, HERE, Server())
    assert saved is not None
    assert saved.all_cloud is not None
    assert saved.layered is not None
    assert saved.saved is not None
    # 20 ms: 50 a second, busy 0.7 of the time: 126,000 an hour for 0.36.
    assert saved.all_cloud.likely == pytest.approx(0.36 / 126)
    assert saved.layered.likely == pytest.approx(0.25 * 0.36 / 126)
    assert saved.saved.likely == pytest.approx(0.75 * 0.36 / 126)


def test_savings_of_a_measured_throughput_on_a_named_machine(prices: Prices) -> None:
    saved = savings(policy_run(cloud_share=0.5), prices, HERE, Server(per_second=100, machine="eight"))
    assert saved is not None
    assert saved.all_cloud is not None
    assert saved.all_cloud.likely == pytest.approx(1.8 / (100 * 0.7 * 3600) * 1000)
    assert saved.machine == "eight"


def test_savings_that_can_not_be_known_say_why(prices: Prices) -> None:
    assert savings({"ingest": record("ingest", 1)}, prices, HERE, Server()) is None
    unmeasured = savings({"compare_pair": record("compare_pair", 1, metrics={"cloud_share": 0.5})}, prices, HERE, Server())
    assert unmeasured is not None
    assert (unmeasured.all_cloud, unmeasured.cloud_share) == (None, 0.5)
    assert "cloud_p50_ms" in unmeasured.why
    unpriced = savings(policy_run(cloud_share=0.5), prices, HERE, Server(machine="nine"))
    assert unpriced is not None
    assert (unpriced.saved, "nine has no price" in unpriced.why) == (None, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machines": [{**TABLE["machines"][0], "source": "nowhere"}]}, ["nowhere"]),
        ({"machines": [{**TABLE["machines"][0], "per_hour": -1}]}, ["machines.0.per_hour"]),
        ({"currency": ""}, ["currency"]),
        ({"prices": []}, ["prices"]),
        ({"sources": {"bill": {"url": "ask me", "seen": "2026-01-01"}}}, ["sources.bill.url"]),
    ],
)
def test_a_wrong_table_names_the_file_and_the_key(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(yaml.safe_dump(TABLE | change))
    with pytest.raises(UsageError) as caught:
        load_prices(file)
    assert all(word in str(caught.value) for word in [*words, str(file)]), caught.value


def test_figures_are_readable() -> None:
    assert [figure(amount) for amount in (0, 12.345, 0.0123456, 0.000012345)] == ["0.00", "12.35", "0.0123", "0.000012"]


def test_this_machine_is_no_larger_than_the_kernel_says() -> None:
    machine = this_machine()
    assert 0 < machine.cpus <= 4096
    assert 0 < machine.memory_gib < 1e5


def test_a_containers_limits_count_and_not_its_nodes_size(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": "MemTotal:       65536000 kB\nMemFree: 1 kB\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/memory.max": f"{3 << 30}\n",
        "proc/driver/nvidia/gpus/0000:00:04.0/information": "Model: \t\t Tesla T4\nIRQ: 1\n",
        "proc/driver/nvidia/gpus/0000:00:05.0/information": "Model: \t\t Tesla T4\nIRQ: 2\n",
        "dev/nvidia0": "",
        "dev/nvidiactl": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert this_machine(tmp_path) == Machine(cpus=0.5, memory_gib=3, accelerators={"Tesla T4": 1})


def test_limits_of_the_older_control_groups_count_too_and_no_limit_is_none(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": "MemTotal:       8388608 kB\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "25000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(9223372036854771712),
        "sys/fs/cgroup/cpu.max": "max 100000",
        "sys/fs/cgroup/memory.max": "max",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert this_machine(tmp_path) == Machine(cpus=0.25, memory_gib=8)


def _store(root: Path, *records: Record) -> str:
    store = open_store(str(root / "store"))
    for each in records:
        store.put(f"runs/20261120-100000-aaaa/{each.step}/record.json", each.model_dump_json(by_alias=True).encode())
    return str(root / "store")


def test_the_report_shows_every_step_its_cost_and_the_savings(tmp_path: Path) -> None:
    uri = _store(tmp_path, *policy_run(cloud_share=0.25).values(), record("train_cloud", 3600, None))
    page = render(open_store(uri), "20261120-100000-aaaa")
    assert "e2-standard-2" in page
    assert "at least" in page
    assert "train_cloud: not known" in page
    assert "Devices answer 75.0% of the predictions alone" in page


def test_the_report_takes_ones_own_price(tmp_path: Path) -> None:
    uri = _store(tmp_path, record("train_cloud", 1800, None))
    page = render(open_store(uri), "20261120-100000-aaaa", ReportSettings.model_validate({"price_per_hour": 4, "currency": "CHF"}))
    assert "2.00 CHF" in page


def _dual(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["cost", *arguments], prog_name="dual")


def test_the_command_shows_a_run_and_its_json_has_the_same_figures(tmp_path: Path, prices: Prices) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(yaml.safe_dump(TABLE))
    uri = _store(tmp_path, *policy_run(cloud_share=0.25).values(), record("train_cloud", 7200))
    shown = _dual("show", "--store", uri, "--prices", str(table))
    assert shown.exit_code == 0, shown.output
    assert "0.72" in shown.output
    assert "seen 2026-11-01" in shown.output
    told = json.loads(_dual("show", "--store", uri, "--prices", str(table), "--json").output)
    assert told["total"]["likely"] == pytest.approx(0.7202)
    assert [step["step"] for step in told["steps"]] == ["train_cloud", "compare_pair", "validate_infra"]
    assert told["per_1000_predictions"]["saved"]["likely"] == pytest.approx(0.75 * 0.36 / 126, abs=1e-6)


def test_the_command_estimates_a_run_here_from_the_runs_before(tmp_path: Path) -> None:
    uri = _store(tmp_path, record("train_cloud", 7200))
    told = json.loads(_dual("estimate", "--target", "local", "--store", uri, "--json").output)
    train = next(step for step in told["steps"] if step["step"] == "train_cloud")
    assert train["seconds"] == {"low": 7200, "likely": 7200, "high": 7200}
    assert "ingest" in told["unknown"]


@pytest.mark.parametrize("arguments", [["show", "--store", "empty"], ["estimate", "--store", "empty", "--target", "local"]])
def test_a_store_without_runs_is_told(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = _dual(*arguments)
    assert (result.exit_code, "no runs in this store" in result.output) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_the_price_list_says_when_a_price_is_too_old(tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(yaml.safe_dump(TABLE))
    result = _dual("prices", "--prices", str(table))
    assert result.exit_code == 1
    assert "prices of 'old' were seen" in result.output
