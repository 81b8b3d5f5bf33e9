"""dual cost: what a run will cost, what it cost, and what the pair saves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import json_option, print_json, store_option


@click.group("cost")
def command() -> None:
    """Estimate a run before it starts, state what it cost afterwards, and look at the prices that both use."""


def price_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--prices, --region and --spot."""
    options = [
        click.option(
            "--prices", "table", type=click.Path(path_type=Path, dir_okay=False), help="Price table (YAML). Default: the embedded one."
        ),
        click.option("--region", default="us-central1", show_default=True, help="Region whose prices count."),
        click.option("--spot", is_flag=True, help="Spot machines: prices become ranges."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@command.command("estimate")
@click.option("--target", type=click.Choice(["local", "kubeflow", "vertex"]), default="kubeflow", show_default=True, help="Where.")
@click.option("--site", "site_file", type=click.Path(path_type=Path, dir_okay=False), help="What dual compile calls --config.")
@store_option
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="How many of the last runs give the steps' times.")
@click.option("--accelerator", default="", help="For the steps that train: none, any, or a model such as L4. Default: the site's.")
@price_options
@json_option
def estimate(
    target: str, site_file: Path | None, store: str, runs: int, accelerator: str, table: Path | None, region: str, spot: bool, as_json: bool
) -> None:
    """Say what a run on TARGET will cost: the last runs' times of its steps on the machines that the steps may use.

    Times are taken as they were measured: a faster machine than that of the last runs needs fewer hours than this says.
    """
    from components.core.stores import open_store
    from components.cost.estimate import estimate as foresee
    from components.cost.estimate import step_times
    from components.cost.prices import Place, load_prices
    from pipelines.asked import asked_of
    from pipelines.targets.site import load_site

    prices, site = load_prices(table), load_site(site_file)
    times = step_times(_last_runs(open_store(store), store, runs))
    place = Place(service="vertex" if target == "vertex" else "compute", region=region, spot=spot)
    _print(foresee(times, asked_of(target, site, accelerator), prices, place), None, as_json)


@command.command("show")
@click.argument("run_id", required=False)
@store_option
@click.option(
    "--service", type=click.Choice(["compute", "vertex"]), default="compute", show_default=True, help="Who is paid for the hours."
)
@click.option("--price-per-hour", type=click.FloatRange(0), help="Your own price of an hour of every step, instead of the table's.")
@click.option("--per-second", default=0.0, type=click.FloatRange(0), help="Predictions a second of one busy server, of a load test.")
@click.option("--server-machine", default="", help="Machine type of the server in the price table. Default: where validate_infra measured.")
@price_options
@json_option
def show(
    run_id: str | None,
    store: str,
    service: Any,
    price_per_hour: float | None,
    per_second: float,
    server_machine: str,
    table: Path | None,
    region: str,
    spot: bool,
    as_json: bool,
) -> None:
    """Say what RUN_ID (default: the newest run) cost, step by step, and what the layered policy saves per 1,000 predictions."""
    from components.core.record import read_records
    from components.core.stores import open_store
    from components.cost.prices import Place, load_prices
    from components.cost.run import cost_of_run
    from components.cost.savings import Server, savings
    from components.report.story import in_order

    opened, prices = open_store(store), load_prices(table)
    records = read_records(opened, _chosen(opened, store, run_id))
    place = Place(service=service, region=region, spot=spot)
    server = Server(per_second=per_second, machine=server_machine, per_hour=price_per_hour if not server_machine else None)
    cost = cost_of_run(records, in_order(records), prices, place, price_per_hour)
    _print(cost, savings(records, prices, place, server), as_json)


@command.command("prices")
@click.option("--prices", "table", type=click.Path(path_type=Path, dir_okay=False), help="Price table (YAML). Default: the embedded one.")
@json_option
def prices_(table: Path | None, as_json: bool) -> None:
    """List the price table with its sources and dates; exit 1 if a price is too old."""
    from datetime import date

    from components.cost.prices import load_prices
    from components.cost.show import price_rows

    prices = load_prices(table)
    stale = prices.stale(set(prices.sources), date.today())
    if as_json:
        print_json({**prices.model_dump(mode="json", by_alias=True), "stale": stale})
    else:
        _table(["service", "region", "what", f"{prices.currency}/hour", "seen", "where"], price_rows(prices))
        for text in stale:
            click.echo(f"warning: {text}", err=True)
    raise SystemExit(1 if stale else 0)


def _last_runs(opened: Any, store: str, count: int) -> list[Any]:
    from components.core.errors import UsageError
    from components.core.record import read_records, run_ids

    runs = run_ids(opened)[-count:]
    if not runs:
        fix = "Make a small run first: dual run --data SOURCE --store STORE"
        raise UsageError("there are no runs in this store, so no times of steps", where=store, fix=fix)
    return [read_records(opened, run) for run in runs]


def _chosen(opened: Any, store: str, run_id: str | None) -> str:
    from components.core.errors import UsageError
    from components.core.record import run_ids

    runs = run_ids(opened)
    if not runs:
        raise UsageError("there are no runs in this store", where=store, fix="Start one with: dual run --data SOURCE --store STORE")
    if run_id and run_id not in runs:
        raise UsageError(f"there is no run '{run_id}'", where=store, fix="See: dual report --list")
    return run_id or runs[-1]


def _print(cost: Any, saved: Any, as_json: bool) -> None:
    from components.cost.show import COLUMNS, as_json_value, remarks, rows, savings_in_words

    if as_json:
        print_json(as_json_value(cost, saved))
        return
    _table(COLUMNS, rows(cost))
    for text in remarks(cost):
        click.echo(text)
    if saved:
        click.echo(savings_in_words(saved, cost.currency))


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True, highlight=False, markup=False).print(table)
