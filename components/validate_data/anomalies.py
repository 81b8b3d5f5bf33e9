"""Anomalies: where the examples differ from the schema, or from what any data set must be."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel

from components.core.errors import DataError
from components.core.examples import Examples, Split
from components.validate_data.measure import STATISTICS
from components.validate_data.scan import Scan, slice_values
from components.validate_data.schema import SCHEMA, Schema
from components.validate_data.settings import Kind, ValidateDataSettings

_BLANK = 2.0
_NAMED = 5


class Anomaly(BaseModel):
    """One thing that is wrong: what, where, how bad, and what to do about it."""

    kind: Kind
    severity: Literal["error", "warning"]
    where: str
    what: str
    fix: str

    def text(self) -> str:
        """The anomaly as a sentence or two."""
        return f"{self.where}: {self.what}. {self.fix}."


class Finding(BaseModel):
    """An anomaly before the settings say how bad it is."""

    kind: Kind
    where: str
    what: str
    fix: str


def graded(findings: Iterable[Finding], settings: ValidateDataSettings) -> list[Anomaly]:
    """The findings that the settings don't switch off, errors first."""
    anomalies: list[Anomaly] = []
    for finding in findings:
        severity = settings.severity_of(finding.kind)
        if severity != "off":
            anomalies.append(Anomaly(severity=severity, **finding.model_dump()))
    return sorted(anomalies, key=lambda anomaly: anomaly.severity)


def raise_errors(anomalies: Iterable[Anomaly]) -> None:
    """Raise `DataError` with the first error, and the number of further ones, if there is any."""
    errors = [anomaly for anomaly in anomalies if anomaly.severity == "error"]
    if not errors:
        return
    first = errors[0]
    more = f" (and {len(errors) - 1} more: {', '.join(sorted({e.kind for e in errors[1:]}))})" if errors[1:] else ""
    fix = f"{first.fix}; or set validate_data.severity.{first.kind} to warning"
    raise DataError(f"{first.what}{more}", where=f"{first.kind}, {first.where}", fix=fix)


def find_anomalies(scan: Scan, manifest: Examples, schema: Schema) -> list[Finding]:
    """All but skew and drift, in a fixed order."""
    checks = (_unreadable, _labels_in_range, _counts, _split_leaks, _blank)
    found = [finding for check in checks for finding in check(scan, manifest)]
    enforced = (_missing_splits, _label_set, _minimum_per_class, _imbalance, _outside, _slice_set)
    return found + [finding for rule in enforced for finding in rule(scan, schema)]


def named(keys: Iterable[str]) -> str:
    """The first few of some names, and how many more."""
    names = sorted(keys)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _unreadable(scan: Scan, _: Examples) -> Iterator[Finding]:
    if scan.broken:
        what = f"{len(scan.broken)} images can't be decoded, the first: {scan.broken[0].why}"
        where = named(broken.key for broken in scan.broken)
        yield Finding(kind="unreadable_image", where=where, what=what, fix="Run the ingest step again, which skips or refuses such files")


def _labels_in_range(scan: Scan, manifest: Examples) -> Iterator[Finding]:
    size = len(manifest.labels)
    wrong = [
        scan.keys[row]
        for row, label in enumerate(scan.label.tolist())
        if not 0 <= label < size or scan.texts[row] not in ("", manifest.labels[label])
    ]
    if wrong:
        what = f"{len(wrong)} images have a label number that is not their class name's place in examples.json"
        yield Finding(kind="label_out_of_range", where=named(wrong), what=what, fix="Run the ingest step again")


def _counts(scan: Scan, manifest: Examples) -> Iterator[Finding]:
    for split, facts in manifest.splits.items():
        found = len(scan.rows(split)) + sum(broken.split == split for broken in scan.broken)
        if found != facts.count:
            what = f"the shards hold {found} images, examples.json says {facts.count}"
            yield Finding(kind="count_mismatch", where=f"split {split}", what=what, fix="Run the ingest step again")


def _split_leaks(scan: Scan, _: Examples) -> Iterator[Finding]:
    homes: dict[str, set[str]] = {}
    for digest, split in zip(scan.sha256, scan.splits.tolist(), strict=True):
        homes.setdefault(digest, set()).add(split)
    leaks = {digest for digest, splits in homes.items() if len(splits) > 1}
    if leaks:
        keys = [key for key, digest in zip(scan.keys, scan.sha256, strict=True) if digest in leaks]
        what = f"{len(leaks)} images are in more than one split, so that the test would be passed by heart"
        yield Finding(kind="split_leak", where=named(keys), what=what, fix="Keep each image in one split")


def _blank(scan: Scan, _: Examples) -> Iterator[Finding]:
    blank = np.flatnonzero(scan.statistics[:, STATISTICS.index("contrast")] < _BLANK)
    if len(blank):
        what = f"{len(blank)} images are of one colour (contrast below {_BLANK:g})"
        yield Finding(kind="blank_image", where=named(scan.keys[row] for row in blank), what=what, fix="Remove them if nothing is on them")


def label_conflicts(conflicts: Mapping[str, str]) -> list[Finding]:
    """One finding for all images that are there with more than one label; `conflicts` maps the key of each to what is known of it."""
    if not conflicts:
        return []
    first, detail = min(conflicts.items())
    what = f"{len(conflicts)} images have more than one label; {first}: {detail}"
    return [
        Finding(kind="label_conflict", where=named(conflicts), what=what, fix="Decide which label is right and remove the other copies")
    ]


def _missing_splits(scan: Scan, schema: Schema) -> Iterator[Finding]:
    for split in schema.splits:
        if not len(scan.rows(split)):
            fix = f"Add images to it, or take it out of splits in {SCHEMA}"
            yield Finding(kind="missing_split", where=f"split {split}", what="the split has no images", fix=fix)


def _label_set(scan: Scan, schema: Schema) -> Iterator[Finding]:
    everything = np.arange(len(scan))
    present = {label for label, count in zip(scan.labels, scan.label_counts(everything), strict=True) if count}
    if unseen := set(scan.labels) - set(schema.labels):
        fix = f"Add to labels in {SCHEMA} what is meant to be there"
        yield Finding(kind="unseen_label", where=f"class {named(unseen)}", what="the schema has no such class", fix=fix)
    if missing := set(schema.labels) - present:
        fix = f"Add images, or take out of labels in {SCHEMA} what is gone for good"
        yield Finding(kind="label_missing", where=f"class {named(missing)}", what="there are no images", fix=fix)


def _minimum_per_class(scan: Scan, schema: Schema) -> Iterator[Finding]:
    for split, minimum in schema.minimum_per_class.items():
        if len(scan.rows(split)):
            yield from _too_few(scan, split, minimum, set(schema.labels))


def _too_few(scan: Scan, split: Split, minimum: int, labels: set[str]) -> Iterator[Finding]:
    kind: Kind = "few_train_examples" if split == "train" else "few_held_out_examples"
    for label, count in zip(scan.labels, scan.label_counts(scan.rows(split)).tolist(), strict=True):
        if label in labels and count < minimum:
            fix = f"Add images, or lower minimum_per_class.{split} in {SCHEMA}"
            yield Finding(kind=kind, where=f"class {label}, split {split}", what=f"{count} images, needs {minimum}", fix=fix)


def _imbalance(scan: Scan, schema: Schema) -> Iterator[Finding]:
    counts = scan.label_counts(scan.rows("train"))
    small, large = int(counts.argmin()), int(counts.argmax())
    if counts[small] and counts[large] > schema.max_imbalance * counts[small]:
        what = (
            f"{scan.labels[large]} has {counts[large] / counts[small]:.1f} times the images of {scan.labels[small]} "
            f"({counts[large]} to {counts[small]}), the schema allows {schema.max_imbalance:g} times"
        )
        yield Finding(kind="class_imbalance", where="split train", what=what, fix="Add images of the small class, or use class weights")


def _outside(scan: Scan, schema: Schema) -> Iterator[Finding]:
    for name, (low, high) in schema.ranges.items():
        column = scan.statistics[:, STATISTICS.index(name)]
        outside = np.flatnonzero((column < low) | (column > high))
        if len(outside) > schema.allowed_outside * len(scan):
            what = (
                f"{name} is outside [{low:g}, {high:g}] in {len(outside)} of {len(scan)} images ({column.min():.4g} to {column.max():.4g})"
            )
            fix = f"Look at these images; widen ranges.{name} in {SCHEMA} if they are fine"
            yield Finding(kind="value_out_of_range", where=named(scan.keys[row] for row in outside), what=what, fix=fix)


def _slice_set(scan: Scan, schema: Schema) -> Iterator[Finding]:
    seen = slice_values(scan.slices)
    for column, values in schema.slices.items():
        for value in sorted(set(values) - set(seen.get(column, {}))):
            fix = f"Add images of it, or take it out of slices.{column} in {SCHEMA}"
            yield Finding(kind="missing_slice", where=f"slice {column}={value}", what="the slice has no images", fix=fix)
    for column, counts in seen.items():
        known = schema.slices.get(column)
        for value in sorted(set(counts) - set(known)) if known else [] if known == [] else ["*"]:
            what = "the schema has no such slice" if known else "the schema has no such column"
            fix = f"Add it to slices in {SCHEMA} if it is meant to be there"
            yield Finding(kind="unseen_slice", where=f"slice {column}={value}", what=what, fix=fix)
