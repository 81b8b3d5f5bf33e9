"""Every place and form that images come in: CSV, archives, TFRecords, URLs, buckets, spans."""

import csv
import gzip
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.core.digest import sha256_file
from components.core.errors import DataError
from components.core.stores.local import LocalStore
from components.ingest.folders import folder_source
from components.ingest.settings import IngestSettings
from components.ingest.spans import select_spans
from components.ingest.tfrecord import encode_example, frame
from components.ingest.trees import StoreTree
from tests.unit.ingest_runs import class_folders, encoded, ingest, picture, text

Rows = list[list[str]]


def write_csv(path: Path, rows: Rows, header: str = "path,label") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def rows_of(data: Path, per_class: int = 12) -> Rows:
    return [[f"{data.name}/{label}/{index:03}.jpg", label] for label in ("cats", "dogs") for index in range(per_class)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        failures = 2

        def do_GET(self) -> None:
            # The first answers are errors that a patient reader survives.
            if Quiet.failures > 0:
                Quiet.failures -= 1
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_csv_with_splits_and_slices(tmp_path: Path, data: Path) -> None:
    splits = ["train"] * 8 + ["val", "valid", "TEST", "test"]
    rows = [[*row, splits[i % 12], "phone" if i % 2 else "web", str(i), "same"] for i, row in enumerate(rows_of(data))]
    table = write_csv(tmp_path / "t.csv", rows, " Path,label,split,device,number,constant")
    run = ingest(table, tmp_path)
    assert [run.examples.splits[split].count for split in ("train", "validation", "test")] == [16, 4, 4]
    assert run.examples.slice_columns == ["device"]
    assert text(run.row("data/cats/001.jpg")["image/slices"]) == '{"device": "phone"}'
    chosen = ingest(table, tmp_path, "chosen", slice_columns=["number"])
    assert text(chosen.row("data/cats/001.jpg")["image/slices"]) == '{"number": "1"}'
    assert ingest(table, tmp_path, "none", slice_columns=[]).examples.slice_columns == []


def test_csv_without_splits_is_split_like_folders(tmp_path: Path, data: Path) -> None:
    from_table = ingest(write_csv(tmp_path / "t.csv", rows_of(data)), tmp_path, "table").splits()
    from_folder = ingest(data, tmp_path, "folder").splits()
    assert from_table == {f"data/{key}": split for key, split in from_folder.items()}


def test_csv_rows_that_cannot_be_used_are_named(tmp_path: Path, data: Path) -> None:
    rows = [*rows_of(data), ["", "cats"], ["data/cats/000.jpg", ""], ["data/gone.jpg", "cats"], ["data/cats/000.jpg", "cats"]]
    run = ingest(write_csv(tmp_path / "t.csv", rows), tmp_path)
    assert [(f.kind, f.key, f.detail) for f in run.ingested.findings] == [
        ("duplicate", "data/cats/000.jpg#2", "same file as data/cats/000.jpg"),
        ("no_label", "line 26", "no path"),
        ("no_label", "line 27", "no label for data/cats/000.jpg"),
        ("unreadable_file", "data/gone.jpg", "No such file or directory"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "column path and label is missing, found nothing"),
        (b"image,label\n", "column path is missing, found image, label"),
        (b"path,label,split\na.jpg,cat,holdout\n", "t.csv line 2: unknown split 'holdout'"),
        (b"path,label,span\na.jpg,cat,monday\n", "t.csv line 2: span 'monday' is no number"),
        (b"path,label\n\xff\xfe,cat\n", "not UTF-8"),
        (b"path,label\n" + b"x" * 200_000 + b",cat\n", "not a CSV"),
    ],
)
def test_bad_tables_are_refused_with_the_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        ingest(tmp_path / "t.csv", tmp_path)


def test_unknown_slice_columns_are_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(DataError, match="no column season"):
        ingest(write_csv(tmp_path / "t.csv", rows_of(data)), tmp_path, slice_columns=["season"])


def test_csv_spans_are_selected_and_recorded(tmp_path: Path, data: Path) -> None:
    rows = [[*row, str(9 + i % 3)] for i, row in enumerate(rows_of(data))]
    table = write_csv(tmp_path / "t.csv", rows, "path,label,span")
    assert ingest(table, tmp_path, "latest").examples.spans == ["11"]
    run = ingest(table, tmp_path, "range", spans="9-10")
    assert run.examples.spans == ["9", "10"]
    assert len(run.splits()) == 16


def test_a_span_column_without_spans_to_choose_from(tmp_path: Path, data: Path) -> None:
    rows = [[*row, ""] for row in rows_of(data)]
    assert len(ingest(write_csv(tmp_path / "t.csv", rows, "path,label,span"), tmp_path).splits()) == 24


def test_csv_from_the_web_reads_pictures_beside_it(tmp_path: Path, data: Path, web: str) -> None:
    rows = [*rows_of(data)[:-1], [f"{web}/data/dogs/011.jpg", "dogs"], [str(data / "cats" / "000.jpg"), "cats"], [f"{web}/no.jpg", "cats"]]
    write_csv(tmp_path / "t.csv", rows)
    run = ingest(f"{web}/t.csv", tmp_path)
    assert len(run.splits()) == 24
    # A table from elsewhere names a path of this machine: that is looked for on its own server, never here.
    assert run.names("unreadable_file") == [str(data / "cats" / "000.jpg"), f"{web}/no.jpg"]
    assert {f.detail for f in run.of_kind("unreadable_file")} == {"HTTP status 404"}


def test_archive_from_the_web_is_checked_and_unpacked(tmp_path: Path, data: Path, web: str) -> None:
    archive = tmp_path / "photos.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(data, "flower_photos")
    run = ingest(f"{web}/photos.tgz?download=1", tmp_path, sha256=sha256_file(archive))
    assert run.splits() == ingest(data, tmp_path, "folder").splits()
    with pytest.raises(DataError, match=r"ingest\.sha256 says 0000"):
        ingest(f"{web}/photos.tgz", tmp_path, "wrong", sha256="0" * 64)
    with pytest.raises(DataError, match="more than 100 bytes"):
        ingest(f"{web}/photos.tgz", tmp_path, "large", max_download_gb=1e-7)


@pytest.mark.parametrize(("url", "said"), [("/gone.zip", "HTTP status 404"), ("/page", "can't tell what is there")])
def test_useless_urls_are_refused(tmp_path: Path, web: str, url: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ingest(web + url, tmp_path)


def test_zip_archive(tmp_path: Path, data: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        for path in sorted(data.rglob("*.jpg")):
            file.write(path, path.relative_to(tmp_path))
    assert ingest(tmp_path / "photos.zip", tmp_path).splits() == ingest(data, tmp_path, "folder").splits()


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"])
def test_archives_cannot_write_outside(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(name, "x")
    info = tarfile.TarInfo(name)
    info.size = 1
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.addfile(info, io.BytesIO(b"x"))
    for archive in ("evil.zip", "evil.tar"):
        with pytest.raises(DataError, match="leads outside"):
            ingest(tmp_path / archive, tmp_path)
    assert not list(tmp_path.rglob("*evil.jpg"))


def test_links_in_archives_are_not_followed(tmp_path: Path, data: Path) -> None:
    link = tarfile.TarInfo("data/cats/passwd.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "photos.tar", "w") as file:
        file.add(data, "data")
        file.addfile(link)
    run = ingest(tmp_path / "photos.tar", tmp_path)
    assert len(run.splits()) == 24
    assert run.ingested.findings == []


def test_archive_bombs_and_damage_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("cats/a.jpg", bytes(5_000_000))
    with pytest.raises(DataError, match=r"unpacks to more than ingest\.max_download_gb"):
        ingest(tmp_path / "bomb.zip", tmp_path, max_download_gb=0.001)
    for name in ("bad.zip", "bad.tgz", "bad.tar"):
        (tmp_path / name).write_bytes(b"no archive at all" * 50)
        with pytest.raises(DataError, match="can't be unpacked"):
            ingest(tmp_path / name, tmp_path)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "bomb.zip").read_bytes()[:2000])
    with pytest.raises(DataError, match="can't be unpacked"):
        ingest(tmp_path / "cut.zip", tmp_path)


def records(data: Path, number: str = "image/label", names: bool = True) -> bytes:
    framed = []
    for label, name in enumerate(("cats", "dogs")):
        for path in sorted((data / name).iterdir()):
            features: dict[str, bytes | int] = {"image/encoded": path.read_bytes(), number: label}
            features |= {"image/class/text": name.encode()} if names else {}
            framed.append(frame(encode_example(features)))
    return b"".join(framed)


@pytest.mark.parametrize("suffix", ["tfrecord", "tfrecord-00000-of-00001", "tfrecord.gz"])
def test_tfrecord_file_with_texts(tmp_path: Path, data: Path, suffix: str) -> None:
    content = records(data)
    path = tmp_path / f"photos.{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    run = ingest(path, tmp_path)
    assert run.examples.labels == ["cats", "dogs"]
    assert len(run.splits()) == 24
    assert f"{path.name}:0" in run.splits()


def test_tfrecord_numbers_need_names(tmp_path: Path, data: Path) -> None:
    (tmp_path / "p.tfrecord").write_bytes(records(data, names=False))
    with pytest.raises(DataError, match=r"p.tfrecord:0: label number 0 has no name.*ingest\.label_names"):
        ingest(tmp_path / "p.tfrecord", tmp_path)
    run = ingest(tmp_path / "p.tfrecord", tmp_path, label_names=["Katze", "Hund"])
    assert text(run.row("p.tfrecord:0")["image/class/text"]) == "Katze"
    (tmp_path / "labels.txt").write_text("chat\nchien\n")
    assert ingest(tmp_path / "p.tfrecord", tmp_path, "beside").examples.labels == ["chat", "chien"]


def test_tfrecord_folder_with_splits_in_its_names(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    for number, split in enumerate(("train", "validation", "test")):
        data = class_folders(tmp_path / split, per_class=4, seed=100 * number)
        (tmp_path / "records" / f"photos-{split}.tfrecord-00000-of-00001").write_bytes(records(data))
    run = ingest(tmp_path / "records", tmp_path)
    assert [run.examples.splits[split].count for split in ("train", "validation", "test")] == [8, 8, 8]


def test_our_own_examples_can_be_ingested_again(tmp_path: Path, data: Path) -> None:
    rows = [[*row, "phone" if i % 2 else "web"] for i, row in enumerate(rows_of(data))]
    first = ingest(write_csv(tmp_path / "t.csv", rows, "path,label,device"), tmp_path, "first")
    second = ingest(first.root, tmp_path, "second")
    assert second.examples.digest == first.examples.digest
    assert second.examples.slice_columns == ["device"]


def test_records_without_image_or_example_are_named(tmp_path: Path, data: Path) -> None:
    odd = frame(encode_example({"image/class/text": b"cats"})) + frame(encode_example({"image": b"x"})) + frame(b"\xff\xff")
    (tmp_path / "p.tfrecord").write_bytes(records(data) + odd)
    findings = ingest(tmp_path / "p.tfrecord", tmp_path).ingested.findings
    assert [(f.kind, f.key, f.detail) for f in findings] == [
        ("no_label", "p.tfrecord:24", "lacks an image"),
        ("no_label", "p.tfrecord:25", "lacks a label"),
        ("not_an_image", "p.tfrecord:26", "no tf.train.Example"),
    ]


@pytest.mark.parametrize("name", ["p.tfrecord", "p.tfrecord.gz"])
def test_damaged_record_files_are_refused(tmp_path: Path, data: Path, name: str) -> None:
    content = records(data)
    (tmp_path / name).write_bytes((gzip.compress(content) if name.endswith("gz") else content)[:-100])
    with pytest.raises(DataError, match=r"p\.tfrecord"):
        ingest(tmp_path / name, tmp_path)


def test_newest_version_of_the_latest_span(tmp_path: Path) -> None:
    for span in (1, 2, 10):
        for version in (1, 2, 11):
            class_folders(tmp_path / "spans" / f"span-{span}" / f"v{version}", per_class=30, seed=10_000 * span + 100 * version)
    (tmp_path / "spans" / "span-x").mkdir()
    pattern = f"{tmp_path}/spans/span-{{SPAN}}/v{{VERSION}}"
    latest = ingest(pattern, tmp_path, "latest")
    assert latest.examples.spans == ["10"]
    assert all(key.startswith("span-10/v11/") for key in latest.splits())
    two = ingest(pattern, tmp_path, "two", spans="1-2")
    assert two.examples.spans == ["1", "2"]
    assert {key.split("/")[0] for key in two.splits()} == {"span-1", "span-2"}
    both = ingest(pattern, tmp_path, "all", spans="all").splits()
    assert {key: both[key] for key in latest.splits()} == latest.splits()
    with pytest.raises(DataError, match="no span matches '7', found 1, 2, 10"):
        ingest(pattern, tmp_path, "none", spans="7")


@pytest.mark.parametrize(
    ("wanted", "chosen"), [("latest", [10]), ("latest:2", [3, 10]), ("all", [1, 3, 10]), ("3", [3]), ("2-9", [3]), ("4", [])]
)
def test_span_selection(wanted: str, chosen: list[int]) -> None:
    assert select_spans([10, 1, 3, 3], wanted) == chosen


def test_a_bucket_reads_like_a_folder(tmp_path: Path, data: Path) -> None:
    (data / "cats" / ".hidden.jpg").write_bytes(b"x")
    source = folder_source(StoreTree(LocalStore(data)), 1 << 20)
    items = list(source.items)
    assert [item.key for item in items] == sorted(p.relative_to(data).as_posix() for p in data.rglob("[!.]*.jpg"))
    assert items[0].load() == (data / "cats" / "000.jpg").read_bytes()
    assert (source.classes, source.fingerprint) == (["cats", "dogs"], None)


def test_bucket_addresses_reach_the_store(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(uri: str) -> LocalStore:
        return LocalStore(tmp_path / uri.removeprefix("gs://bucket").strip("/"))

    for module in ("source", "fetch"):
        monkeypatch.setattr(f"components.ingest.{module}.open_store", opened)
    folder = ingest("gs://bucket/data", tmp_path, "folder")
    assert folder.splits() == ingest(data, tmp_path, "local").splits()
    write_csv(tmp_path / "t.csv", [["gs://bucket/data/cats/000.jpg", "cats"], *rows_of(data)[1:]])
    assert len(ingest("gs://bucket/t.csv", tmp_path, "table").splits()) == 24
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec" / "a.tfrecord").write_bytes(records(data, names=False))
    (tmp_path / "rec" / "labels.txt").write_text("cats\ndogs\n")
    assert ingest("gs://bucket/rec", tmp_path, "records").examples.labels == ["cats", "dogs"]
    with pytest.raises(DataError, match="there is nothing"):
        ingest("gs://bucket/nothing", tmp_path, "empty")


def test_pictures_over_the_size_limit_are_skipped_wherever_they_are(tmp_path: Path, data: Path) -> None:
    (data / "cats" / "big.png").write_bytes(encoded(picture(9, (400, 400)), "PNG"))
    limit = IngestSettings(max_file_mb=0.02).max_file_mb
    assert ingest(data, tmp_path, max_file_mb=limit).names("too_large") == ["cats/big.png"]
    (tmp_path / "p.tfrecord").write_bytes(records(data))
    assert ingest(tmp_path / "p.tfrecord", tmp_path, "records", max_file_mb=limit).names("too_large") == ["p.tfrecord:12"]
