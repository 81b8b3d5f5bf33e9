"""The validate_data step from examples to record: what it finds, what stops the run, what is left in the store."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from components.core.errors import DataError, UsageError
from components.core.examples import MANIFEST
from components.core.record import Record, open_step, read_records
from components.core.stores import open_store
from components.validate_data.schema import SCHEMA
from components.validate_data.settings import ValidateDataSettings
from components.validate_data.validate import check_examples
from tests.unit.data_examples import Item, changed, items, picture, write_examples

GOOD = items()


class Bench:
    """A store and a folder; every check is one run of the step."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.uri = folder, str(folder / "store")
        self.store = open_store(self.uri)
        self.runs = 0

    def run(self, examples: Path | list[Item], labels: list[str] | None = None, **settings: Any) -> list[str]:
        """Kinds of the anomalies of one more run, errors first."""
        self.runs += 1
        root = examples if isinstance(examples, Path) else write_examples(self.folder / f"examples-{self.runs}", examples, labels)
        text = json.dumps({"seed": 1, "validate_data": {"sample_classes": 1, "pictures": False, **settings}})
        with open_step("validate_data", store=self.uri, run_id=f"run-{self.runs}") as record:
            return [anomaly.kind for anomaly in check_examples(record, root, text, self.output())]

    def output(self) -> Path:
        return self.folder / f"output-{self.runs}"

    def record(self) -> Record:
        return read_records(self.store, f"run-{self.runs}")["validate_data"]

    def anomalies(self) -> list[dict[str, str]]:
        return json.loads((self.output() / "anomalies.json").read_text())["anomalies"]

    def edit(self, **keys: Any) -> None:
        """Change keys of the schema, as a person would."""
        content = yaml.safe_load(self.store.get(SCHEMA).data)
        self.store.put(SCHEMA, yaml.safe_dump(content | keys).encode())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def known(bench: Bench) -> Bench:
    """A bench whose schema is that of GOOD."""
    assert bench.run(GOOD) == []
    return bench


@pytest.fixture
def free(known: Bench) -> Bench:
    """The same, with a schema that allows any value."""
    known.edit(ranges={})
    return known


def without(made: list[Item], unwanted: Callable[[Item], bool]) -> list[Item]:
    return [item for item in made if not unwanted(item)]


def test_a_first_run_leaves_schema_reference_statistics_and_pictures(known: Bench) -> None:
    schema = yaml.safe_load(known.store.get(SCHEMA).data)
    assert schema["labels"] == ["daisy", "roses", "tulips"]
    assert schema["minimum_per_class"] == {"train": 10, "validation": 6, "test": 6}
    assert schema["slices"] == {"source": ["phone", "web"]}
    assert known.store.exists(schema["reference"])
    facts = json.loads((known.output() / "statistics.json").read_text())
    assert facts["images"] == 132
    assert facts["splits"]["train"] == {"images": 60, "per_class": {"daisy": 20, "roses": 20, "tulips": 20}}
    assert facts["slices_per_split"]["test"] == {"source": {"phone": 18, "web": 18}}
    assert facts["distributions"]["width"]["train"]["median"] == 32
    assert sum(facts["distributions"]["brightness"]["test"]["histogram"]["counts"]) == 36


def test_every_picture_is_an_image_of_less_than_150_kb(free: Bench) -> None:
    free.run(items(light=0.8, start=5000), pictures=True)
    names = ["classes", "distributions", "splits", "samples-00", "drift-statistics", "drift-projection", "drift-images"]
    assert [p.name for p in free.record().pictures] == names
    pictures = [free.store.get(f"runs/run-2/validate_data/{p.file}").data for p in free.record().pictures]
    for data in pictures:
        assert data.startswith((b"\x89PNG", b"\xff\xd8"))
        assert len(data) < 150_000


def test_two_runs_over_the_same_examples_say_the_same(known: Bench) -> None:
    first = (known.output() / "statistics.json").read_bytes()
    assert known.run(GOOD, pictures=True) == known.run(GOOD, pictures=True) == []
    assert (known.output() / "statistics.json").read_bytes() == first
    for drawn in known.record().pictures:
        one, other = (known.store.get(f"runs/run-{run}/validate_data/{drawn.file}").data for run in (2, 3))
        assert one == other
    assert known.record().metrics["drift/embedding"] == pytest.approx(0.5, abs=1e-3)


def test_new_images_of_the_same_kind_have_not_drifted(known: Bench) -> None:
    assert known.run(items(start=9000)) == []


def test_brighter_images_have_drifted_and_the_report_says_how(free: Bench) -> None:
    assert free.run(items(light=0.75, start=9000)) == ["drift"]
    text = free.record().warnings[0]
    assert "brightness distance" in text
    assert "embedding AUC" in text


def test_drifted_data_become_the_new_normal_by_naming_their_sample(free: Bench) -> None:
    new = items(light=0.75, start=9000)
    free.run(new)
    offered = free.anomalies()[0]["fix"].split('"')[1]
    free.edit(reference=offered)
    assert free.run(new) == []
    assert free.run(GOOD) == ["drift"]


def test_no_reference_switches_drift_off(free: Bench) -> None:
    free.edit(reference="")
    assert free.run(items(light=0.75, start=9000)) == []


def test_a_rare_class_that_became_common_is_drift_of_labels(known: Bench) -> None:
    known.edit(minimum_per_class={"train": 1})
    known.run(without(items(60, 12, start=300), lambda item: item.split == "train" and item.label != "daisy" and hash_of(item) % 10 > 0))
    assert "labels distance" in " ".join(a["what"] for a in known.anomalies())


def hash_of(item: Item) -> int:
    return int(item.key.split("/")[1].split(".")[0])


def test_splits_that_differ_are_skewed(bench: Bench) -> None:
    dark = [item if item.split != "test" else replace(item, image=picture(hash_of(item), light=0.2)) for item in GOOD]
    assert bench.run(dark, pictures=True) == ["skew"]
    assert bench.anomalies()[0]["where"] == "split test"
    assert "skew_test-images" in {p.name for p in bench.record().pictures}


def test_skew_within_a_slice_is_found_where_asked_for(bench: Bench) -> None:
    """Dark in the test split of one source, bright in that of the other: no skew unless one looks at each."""
    made = [
        replace(i, image=picture(hash_of(i), light=0.3 if (i.slices["source"] == "web") == (i.split == "test") else 0.7))
        for i in items(40, 40)
    ]
    assert bench.run(made) == []
    assert bench.run(made, skew_slices=["source"]) == ["skew", "skew"]


def test_errors_are_raised_after_everything_is_written(known: Bench) -> None:
    with pytest.raises(DataError, match="few_train_examples, class roses, split train: 2 images, needs 10") as error:
        known.run(without(GOOD, lambda item: item.label == "roses" and item.split == "train" and hash_of(item) > 21), pictures=True)
    assert error.value.exit_code == 4
    assert [a["kind"] for a in known.anomalies()] == ["few_train_examples"]
    assert (known.output() / "statistics.json").exists()
    record = known.record()
    assert record.status == "failed"
    assert {p.name for p in record.pictures} >= {"classes", "drift-statistics"}
    assert all(known.store.exists(f"runs/run-2/validate_data/{p.file}") for p in record.pictures)
    assert record.data["anomalies"][0]["fix"].endswith(SCHEMA)


def test_data_with_errors_never_become_the_norm(bench: Bench) -> None:
    with pytest.raises(DataError, match="needs 5"):
        bench.run(items(per_class=3))
    assert not bench.store.exists(SCHEMA)


def test_a_missing_split_stops_the_run_even_the_first(bench: Bench) -> None:
    with pytest.raises(DataError, match="missing_split, split validation"):
        bench.run(without(GOOD, lambda item: item.split == "validation"))


def test_few_images_to_test_with_are_a_warning(known: Bench) -> None:
    kept = without(GOOD, lambda item: item.split == "test" and item.label == "tulips" and hash_of(item) % 4 > 0)
    assert known.run(kept) == ["few_held_out_examples"]


def test_an_unseen_class_and_a_missing_one(free: Bench) -> None:
    renamed = [replace(item, label="lilies") if item.label == "roses" else item for item in GOOD]
    with pytest.raises(DataError, match="unseen_label, class lilies"):
        free.run(renamed)
    assert [(a["kind"], a["where"]) for a in free.anomalies()][:2] == [
        ("unseen_label", "class lilies"),
        ("label_missing", "class roses"),
    ]
    free.edit(labels=["daisy", "lilies", "tulips"])
    assert free.run(renamed) == ["drift"]


def test_one_class_much_larger_than_another(bench: Bench) -> None:
    made = items(60) + [replace(i, key=f"more/{i.key}") for i in items(60, 0, start=7000) if i.label == "daisy"]
    made = without(made, lambda item: item.split == "train" and item.label == "tulips" and hash_of(item) > 126)
    assert bench.run(made, max_imbalance=10, severity={"skew": "off"}) == ["class_imbalance"]
    assert "daisy has 17.1 times the images of tulips (120 to 7)" in bench.anomalies()[0]["what"]


def test_values_out_of_range_are_counted_and_named(known: Bench) -> None:
    small = [replace(item, image=picture(hash_of(item), side=80)) if hash_of(item) in (3, 4) else item for item in GOOD]
    assert known.run(small) == ["value_out_of_range", "value_out_of_range"]
    assert "width is outside [16, 64] in 2 of 132 images" in known.anomalies()[0]["what"]
    assert known.anomalies()[0]["where"] == "daisy/3.jpg, daisy/4.jpg"
    known.edit(allowed_outside=0.02)
    assert known.run(small) == []


def test_the_same_picture_under_two_labels(bench: Bench) -> None:
    twin = replace(GOOD[25], image=GOOD[0].image)
    assert bench.run([*GOOD, replace(twin, key="roses/twin.jpg")], pictures=True) == ["label_conflict"]
    assert "daisy/0.jpg: the same picture is labelled daisy and roses" in bench.anomalies()[0]["what"]
    assert "conflicts" in {p.name for p in bench.record().pictures}


def test_conflicts_that_ingest_left_out_are_reported_too(bench: Bench) -> None:
    root = write_examples(bench.folder / "examples", GOOD)
    finding = {"kind": "label_conflict", "key": "daisy/x.jpg", "detail": "labelled daisy and roses", "action": "skipped"}
    listed = {"schema": "dual.ingest/v1", "layout": "folders", "read": 9, "scaled": 0, "counts": {}, "findings": [finding]}
    (root / "ingest.json").write_text(json.dumps(listed))
    assert bench.run(root) == ["label_conflict"]
    assert "daisy/x.jpg: labelled daisy and roses (skipped by ingest)" in bench.anomalies()[0]["what"]


def test_the_same_picture_in_two_splits(bench: Bench) -> None:
    with pytest.raises(DataError, match="split_leak"):
        bench.run([*GOOD, replace(GOOD[0], split="test", key="daisy/leak.jpg")])


def test_blank_pictures(bench: Bench) -> None:
    assert bench.run([*GOOD[:1], *changed(GOOD[1:2], lambda image: Image.new("RGB", image.size, "white")), *GOOD[2:]]) == ["blank_image"]


def test_slices_that_came_and_went(known: Bench) -> None:
    renamed = [replace(i, slices={"source": "film", "place": "x"} if i.slices["source"] == "web" else i.slices) for i in GOOD]
    assert known.run(renamed) == ["missing_slice", "unseen_slice", "unseen_slice"]
    assert [a["where"] for a in known.anomalies()] == ["slice source=web", "slice place=*", "slice source=film"]


def test_an_undecodable_image_is_named_and_the_rest_measured(bench: Bench) -> None:
    with pytest.raises(DataError, match=r"unreadable_image, daisy/0\.jpg: 1 images can't be decoded"):
        bench.run([replace(GOOD[0], image=GOOD[0].image[:300]), *GOOD[1:]])
    assert json.loads((bench.output() / "statistics.json").read_text())["images"] == 131


@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: data[:500] + b"\x00\x00" + data[502:]])
def test_a_damaged_shard_is_named(bench: Bench, damage: Callable[[bytes], bytes]) -> None:
    root = write_examples(bench.folder / "examples", GOOD)
    shard = root / "train/shard-00000-of-00001.tfrecord"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(DataError, match=r"train/shard-00000-of-00001\.tfrecord: .*byte"):
        bench.run(root)


def test_a_missing_shard_and_a_missing_manifest_are_named(bench: Bench) -> None:
    root = write_examples(bench.folder / "examples", GOOD)
    (root / "test/shard-00000-of-00001.tfrecord").unlink()
    with pytest.raises(DataError, match=r"test/shard-00000-of-00001\.tfrecord: the shard is missing"):
        bench.run(root)
    (root / MANIFEST).unlink()
    with pytest.raises(DataError, match=MANIFEST):
        bench.run(root)


def test_counts_and_label_numbers_must_agree_with_the_manifest(bench: Bench) -> None:
    root = write_examples(bench.folder / "examples", GOOD)
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["labels"] = ["daisy", "roses"]
    manifest["splits"]["train"]["count"] = 61
    (root / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="label_out_of_range"):
        bench.run(root)
    assert {"label_out_of_range", "count_mismatch"} <= {a["kind"] for a in bench.anomalies()}


def test_examples_without_classes_or_images_are_refused_plainly(bench: Bench) -> None:
    with pytest.raises(DataError, match="there are no classes"):
        bench.run([])
    with pytest.raises(DataError, match="missing_split"):
        bench.run([], labels=["daisy"])


def test_a_malformed_schema_stops_the_run_before_any_work(known: Bench) -> None:
    known.edit(max_imbalance="lots")
    with pytest.raises(UsageError, match=r"schema/data\.yaml, key max_imbalance: .*found 'lots'"):
        known.run(GOOD)
    assert not known.output().exists()


def test_a_reference_that_is_gone_or_damaged_is_named(known: Bench) -> None:
    known.edit(reference="schema/reference-gone.npz")
    with pytest.raises(UsageError, match=r"key reference.*reference-gone|reference-gone.*") as error:
        known.run(GOOD)
    assert "key reference" in str(error.value)
    known.store.put("schema/reference-gone.npz", b"PK not a zip")
    with pytest.raises(DataError, match=r"reference-gone\.npz: the reference can't be used"):
        known.run(GOOD)


def test_a_reference_with_pickled_objects_is_refused(known: Bench, tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", descriptor=np.array([{"a": 1}], dtype=object))
    known.store.put("schema/evil.npz", (tmp_path / "evil.npz").read_bytes())
    known.edit(reference="schema/evil.npz")
    with pytest.raises(DataError, match="can't be used"):
        known.run(GOOD)


def test_severity_is_a_setting(free: Bench) -> None:
    new = items(light=0.75, start=9000)
    assert free.run(new, severity={"drift": "off"}) == []
    with pytest.raises(DataError, match="drift, split train"):
        free.run(new, severity={"drift": "error"})


def test_settings_that_can_never_find_anything_are_refused() -> None:
    with pytest.raises(ValueError, match=r"99 permutations can.t reach alpha .*: set at least 900"):
        ValidateDataSettings.model_validate({"permutations": 99})


def test_class_names_with_formulas_and_foreign_letters_can_be_drawn(bench: Bench) -> None:
    names = {"daisy": "$x^$", "roses": "naïve rösé", "tulips": "a/b"}
    assert bench.run([replace(item, label=names[item.label]) for item in GOOD], pictures=True) == []


def test_examples_that_tensorflow_wrote_are_read_alike(bench: Bench, tiny_examples: Path) -> None:
    assert bench.run(tiny_examples, min_compared=10) == []
    assert json.loads((bench.output() / "statistics.json").read_text())["images"] == 90
