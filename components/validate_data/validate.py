"""The step: one pass over the examples, then schema, anomalies, skew and drift; errors stop the run after all is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core.digest import canonical_json
from components.core.errors import DataError
from components.core.examples import MANIFEST, SPLITS, Examples, read_examples
from components.core.record import StepRecord
from components.core.settings import section, value
from components.validate_data.anomalies import Anomaly, Finding, find_anomalies, graded, label_conflicts, raise_errors
from components.validate_data.compare import Compared, Comparison, compare_reference, compare_splits, shift_finding
from components.validate_data.conflicts import conflicting_rows, conflicts_of, ingest_conflicts
from components.validate_data.pictures import draw_conflicts, draw_data, draw_shift
from components.validate_data.reference import Sample, keep_reference, read_reference, reference_bytes
from components.validate_data.scan import Scan, scan_examples
from components.validate_data.schema import SCHEMA, Schema, infer_schema, keep_schema, read_schema, schema_yaml
from components.validate_data.settings import ValidateDataSettings
from components.validate_data.statistics import class_rows, distribution_rows, slice_rows, statistics

STATISTICS_FILE, SCHEMA_FILE, ANOMALIES_FILE = "statistics.json", "schema.yaml", "anomalies.json"


def check_examples(record: StepRecord, examples: Path, settings: str, output: Path) -> list[Anomaly]:
    """Measure the examples artifact, check it, and fill the folder `output` with statistics.json, schema.yaml and anomalies.json.

    On a store's first run without errors the schema and the reference for drift are made and kept; later runs are checked against
    them. Returns the anomalies, errors first. Raises `UsageError` for a malformed schema before any work, and `DataError` for
    anomalies of severity error after everything (statistics, pictures, record) is written.
    """
    chosen, seed = section(settings, "validate_data", ValidateDataSettings), int(value(settings, "seed", 1))
    known = read_schema(record.store)
    reference = read_reference(record.store, known.reference) if known and known.reference else None
    manifest = _usable(read_examples(examples), examples)
    scan = scan_examples(examples, manifest, chosen.threads)
    facts = statistics(scan, manifest)
    _show_data(record, scan, facts, chosen)
    schema = known or infer_schema(scan, chosen)
    compared = _compare(record, scan, reference, chosen, seed)
    findings = [
        *find_anomalies(scan, manifest, schema),
        *_conflicts(record, scan, examples, chosen),
        *_shifts(record, scan, compared, chosen),
    ]
    anomalies = graded(findings, chosen)
    if known is None:
        schema = _keep_first(record, scan, schema, anomalies, chosen)
    _write(output, facts, schema, anomalies, [one.comparison for one in compared], record.run_id)
    _show_anomalies(record, anomalies)
    record.write()
    raise_errors(anomalies)
    return anomalies


def _usable(manifest: Examples, examples: Path) -> Examples:
    if not manifest.labels:
        raise DataError("there are no classes", where=str(examples / MANIFEST), fix="Give ingest a folder for each class")
    return manifest


def _show_data(record: StepRecord, scan: Scan, facts: dict[str, Any], settings: ValidateDataSettings) -> None:
    record.say(f"measured {len(scan)} images")
    record.metric("images", len(scan))
    record.metric("classes", len(scan.labels))
    record.table("Images per class", ["class", *SPLITS, "all"], class_rows(scan))
    if rows := slice_rows(scan):
        record.table("Images per slice", ["slice", *SPLITS, "all"], rows)
    columns = ["statistic", "unit", *SPLITS]
    record.table("What the images are like (5th percentile · median · 95th percentile)", columns, distribution_rows(facts))
    if settings.pictures:
        draw_data(record, scan, settings)


def _compare(record: StepRecord, scan: Scan, reference: Sample | None, settings: ValidateDataSettings, seed: int) -> list[Compared]:
    compared = list(compare_splits(scan, settings, seed))
    if reference is not None:
        compared.append(compare_reference(scan, reference, settings, seed))
    for one in compared:
        _show_comparison(record, one.comparison)
        if settings.pictures:
            draw_shift(record, scan, one, settings)
    return compared


def _show_comparison(record: StepRecord, comparison: Comparison) -> None:
    title = f"{comparison.kind.capitalize()}: {comparison.sample} against {comparison.base}"
    if comparison.skipped:
        record.note(f"{title}: not compared, {comparison.skipped}.")
        return
    rows = [
        [m.name, round(m.distance, 3), m.threshold, float(f"{m.corrected_p_value:.2g}"), "yes" if m.flagged else "no"]
        for m in comparison.measures
    ]
    record.table(title, ["measure", "distance", "threshold", "p-value", "differs"], rows)
    distances = {measure.name: measure.distance for measure in comparison.measures}
    for name in ("embedding", "labels"):
        record.metric(f"{comparison.name}/{name}", distances.pop(name))
    record.metric(f"{comparison.name}/statistics", max(distances.values()))


def _conflicts(record: StepRecord, scan: Scan, examples: Path, settings: ValidateDataSettings) -> list[Finding]:
    rows = conflicting_rows(scan)
    if settings.pictures:
        draw_conflicts(record, scan, rows, settings)
    return label_conflicts(ingest_conflicts(examples) | conflicts_of(scan, rows))


def _shifts(record: StepRecord, scan: Scan, compared: Sequence[Compared], settings: ValidateDataSettings) -> list[Finding]:
    """Skew and drift as findings; a sample of drifted data is kept in the store, so that people can make it the reference."""
    found: list[Finding] = []
    for comparison in (one.comparison for one in compared):
        drifted = comparison.kind == "drift" and comparison.flagged()
        name = keep_reference(record.store, reference_bytes(scan, settings)) if drifted else ""
        found += shift_finding(comparison, name)
    return found


def _keep_first(record: StepRecord, scan: Scan, schema: Schema, anomalies: Sequence[Anomaly], settings: ValidateDataSettings) -> Schema:
    if any(anomaly.severity == "error" for anomaly in anomalies):
        record.note("No schema was kept: the images have errors, and would have become the norm.")
        return schema
    name = keep_reference(record.store, reference_bytes(scan, settings))
    kept = keep_schema(record.store, schema.model_copy(update={"reference": name}), scan, record.run_id)
    record.note(f"First run of this store: inferred {SCHEMA}, which is yours to edit; later runs are checked against it.")
    return kept


def _write(
    output: Path, facts: dict[str, Any], schema: Schema, anomalies: Sequence[Anomaly], comparisons: Sequence[Comparison], run_id: str
) -> None:
    listed = {
        "schema": "dual.anomalies/v1",
        "anomalies": [anomaly.model_dump() for anomaly in anomalies],
        "comparisons": [comparison.model_dump() for comparison in comparisons],
    }
    output.mkdir(parents=True, exist_ok=True)
    _replace(output / STATISTICS_FILE, canonical_json(facts))
    _replace(output / SCHEMA_FILE, schema_yaml(schema, run_id, {}).encode())
    _replace(output / ANOMALIES_FILE, canonical_json(listed))


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)


def _show_anomalies(record: StepRecord, anomalies: Sequence[Anomaly]) -> None:
    for severity in ("error", "warning"):
        record.metric(f"anomalies/{severity}s", sum(anomaly.severity == severity for anomaly in anomalies))
    record.data("anomalies", [anomaly.model_dump() for anomaly in anomalies])
    if anomalies:
        rows = [[a.severity, a.kind, a.where, a.what, a.fix] for a in anomalies]
        record.table("Anomalies", ["severity", "kind", "where", "what", "what to do"], rows)
    else:
        record.note("The images fit the schema: no anomalies.")
    for anomaly in anomalies:
        record.warn(f"{anomaly.kind}: {anomaly.text()}")
