"""The HTML page: everything inline, no script, no external call, so that KFP's sandboxed view and a mail attachment show it whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.core.record import Record, data_uri, read_records, record_name
from components.core.stores import Store
from components.cost.prices import Place, load_prices
from components.cost.run import cost_of_run
from components.cost.savings import Server, savings
from components.cost.show import amount, in_total, remarks, savings_in_words
from components.report.settings import ReportSettings
from components.report.story import Story, blessed, in_order, tell, verdicts

_TITLES = {
    "ingest": "Images taken in",
    "validate_data": "Data checked",
    "train_cloud": "Cloud model trained",
    "evaluate_cloud": "Cloud model measured",
    "train_mobile": "Mobile model trained",
    "quantize_mobile": "Mobile model quantized",
    "evaluate_mobile": "Mobile model measured",
    "compare_pair": "The pair compared",
    "validate_infra": "Loaded and queried for real",
    "assemble_release": "Release assembled",
    "roll_out_cloud": "Cloud model rolled out",
    "publish_mobile": "Mobile model published",
}


@dataclass(frozen=True)
class Bar:
    """One step of the time line; times in seconds since the run began, shares in percent of the whole."""

    step: str
    seconds: float
    left: float
    width: float
    status: str
    cached: bool


def render(store: Store, run_id: str, settings: ReportSettings | None = None, *, release: str = "") -> str:
    """The page of a run as it stands now; the exit step calls it last, assemble_release for the copy inside `release`."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    records = {step: record for step, record in read_records(store, run_id).items() if step != "report"}
    environment = Environment(loader=PackageLoader("components.report", "."), autoescape=select_autoescape(["html"], default=True))
    environment.filters["cell"] = _cell
    template = environment.get_template("page.html")
    story = blessed(records, release) if release else tell(records)
    bars = time_line(records)
    return template.render(
        run_id=run_id,
        story=story,
        headline=_headline(story, records),
        verdicts=verdicts(records),
        pair=pair_table(records),
        steps=[_section(store, run_id, records[step]) for step in in_order(records)],
        bars=bars,
        total_seconds=sum(bar.seconds for bar in bars),
        **costs(records, settings or ReportSettings.model_validate({})),
        started=min((record.started for record in records.values()), default=""),
    )


def costs(records: Mapping[str, Record], settings: ReportSettings) -> dict[str, Any]:
    """What the page says of money: step → cost, the sum, and sentences."""
    prices, own = load_prices(), settings.price_per_hour
    place = Place(service=settings.service, region=settings.region, spot=settings.spot)
    if own is not None:
        prices = prices.model_copy(update={"currency": settings.currency})
    cost = cost_of_run(records, in_order(records), prices, place, own)
    saved = savings(records, prices, place, Server(per_hour=own))
    sentences = [savings_in_words(saved, cost.currency)] if saved else []
    return {
        "cost": {step.step: (step.machine or "–", amount(step)) for step in cost.steps},
        "total_cost": in_total(cost),
        "currency": cost.currency,
        "cost_remarks": [*remarks(cost), *sentences],
    }


def time_line(records: Mapping[str, Record]) -> list[Bar]:
    """When each step ran."""
    from datetime import datetime

    steps = [records[step] for step in in_order(records)]
    starts = [datetime.fromisoformat(record.started).timestamp() for record in steps]
    if not starts:
        return []
    zero = min(starts)
    span = max(max(start + r.seconds for start, r in zip(starts, steps, strict=True)) - zero, 0.001)
    return [
        Bar(
            step=record.step,
            seconds=record.seconds,
            left=100 * (start - zero) / span,
            width=max(100 * record.seconds / span, 0.4),
            status=record.status,
            cached=record.cached,
        )
        for start, record in zip(starts, steps, strict=True)
    ]


def pair_table(records: Mapping[str, Record]) -> list[tuple[str, str, str]]:
    """(what, cloud, mobile): the two models side by side, as far as they were measured."""
    cloud, mobile = _metrics(records, "evaluate_cloud"), _metrics(records, "evaluate_mobile")
    names = [name for name in ("accuracy", "macro_f1", "expected_calibration_error", "log_loss") if name in cloud or name in mobile]
    return [(name.replace("_", " "), _number(cloud.get(name)), _number(mobile.get(name))) for name in names]


def _metrics(records: Mapping[str, Record], step: str) -> Mapping[str, float]:
    return records[step].metrics if step in records else {}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _headline(story: Story, records: Mapping[str, Record]) -> str:
    if story.outcome == "SHIPPED":
        return f"Release {story.release} serves and is published: both halves of the pair."
    if story.outcome == "BLESSED":
        return f"Release {story.release} passed every check. What became of it is in the report of its run."
    if story.outcome == "NOT SHIPPED":
        return "The run finished; the gates refused the pair. Nothing that serves or is published was changed."
    done = sum(record.status == "succeeded" for record in records.values())
    return f"Step {story.failed_step or '?'} failed after {done} steps had succeeded. What they made is kept."


def _section(store: Store, run_id: str, record: Record) -> dict[str, Any]:
    pictures = [
        {"caption": p.caption, "uri": data_uri(p.file, store.get(record_name(run_id, record.step, p.file)).data)} for p in record.pictures
    ]
    return {"title": _TITLES.get(record.step, record.step), "record": record, "pictures": pictures}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
