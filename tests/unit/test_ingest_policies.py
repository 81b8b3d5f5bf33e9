"""Every kind of bad input, under every policy that it may have."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from tests.unit.ingest_runs import class_folders, encoded, ingest, picture

Make = Callable[[], bytes]


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size: a decompression bomb, as far as a header tells."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def animated() -> bytes:
    return encoded(picture(901), "GIF", save_all=True, append_images=[picture(902), picture(903)])


def rotated(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(904), "JPEG", exif=exif, quality=95)


def sixteen_bit() -> bytes:
    ramp = np.tile(np.linspace(0, 65535, 64, dtype=np.uint16), (40, 1))
    return encoded(Image.fromarray(ramp), "PNG")


def sixteen_bit_rgb() -> bytes:
    """Pillow can't write these, and reduces them silently when it reads them."""
    rows = b"".join(b"\0" + struct.pack(">96H", *range(i * 600, i * 600 + 96 * 600, 600)) for i in range(12))
    rows += b"".join(b"\0" + bytes(192) for _ in range(20))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def half_transparent() -> bytes:
    image = picture(905).convert("RGBA")
    image.paste((255, 0, 0, 0), (0, 0, 24, 40))
    return encoded(image, "PNG")


BAD: dict[str, list[tuple[str, Make]]] = {
    "truncated": [
        ("cut.jpg", lambda: encoded(picture(900, (200, 200)))[:-1500]),
        ("cut.png", lambda: encoded(picture(900), "PNG")[:-300]),
        ("head.jpg", lambda: encoded(picture(900))[:8]),
        ("garbled.png", lambda: encoded(picture(900), "PNG")[:100] + bytes(500)),
    ],
    "not_an_image": [("note.jpg", lambda: b"hello, this is text"), ("empty.jpg", lambda: b""), ("page.png", lambda: b"<html></html>")],
    "too_small": [("dot.png", lambda: encoded(picture(900, (1, 1)), "PNG")), ("line.jpg", lambda: encoded(picture(900, (400, 3))))],
    "too_large": [("bomb.png", lambda: png_header(60_000, 60_000)), ("bomb2.png", lambda: png_header(10_000, 10_000))],
    "cmyk": [("print.jpg", lambda: encoded(picture(900).convert("CMYK")))],
    "sixteen_bit": [("deep.png", sixteen_bit), ("deep_rgb.png", sixteen_bit_rgb)],
    "animated": [("moves.gif", animated), ("pages.tif", lambda: encoded(picture(1), "TIFF", save_all=True, append_images=[picture(2)]))],
    "transparent": [("glass.png", half_transparent), ("la.png", lambda: encoded(picture(900).convert("LA"), "PNG"))],
    "rotated": [("side.jpg", rotated), ("down.jpg", lambda: rotated(3))],
}
MENDED = {"cmyk", "sixteen_bit", "animated", "transparent", "rotated"}
CASES = [(kind, name, make) for kind, cases in BAD.items() for name, make in cases]


def with_bad(root: Path, name: str, data: bytes) -> Path:
    class_folders(root)
    (root / "cats" / name).write_bytes(data)
    return root


@pytest.mark.parametrize(("kind", "name", "make"), CASES, ids=[name for _, name, _ in CASES])
def test_by_default_bad_images_are_fixed_or_skipped_and_named(tmp_path: Path, kind: str, name: str, make: Make) -> None:
    run = ingest(with_bad(tmp_path / "data", name, make()), tmp_path)
    (finding,) = run.of_kind(kind)
    assert (finding.key, finding.action) == (f"cats/{name}", "fixed" if kind in MENDED else "skipped")
    assert run.examples.problems == {kind: 1}
    assert (f"cats/{name}" in run.splits()) == (kind in MENDED)
    assert sum(split.count for split in run.examples.splits.values()) == 24 + (kind in MENDED)
    if kind in MENDED:
        image = run.image(f"cats/{name}")
        image.load()
        assert (image.format, image.mode) in {("JPEG", "RGB"), ("PNG", "RGB")}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_refused_images_stop_the_run_and_are_named(tmp_path: Path, kind: str) -> None:
    name, make = BAD[kind][0]
    with pytest.raises(DataError, match=rf"ingest\.policies\.{kind}: .*cats/{name}") as caught:
        ingest(with_bad(tmp_path / "data", name, make()), tmp_path, policies={kind: "refuse"})
    assert caught.value.exit_code == 4
    assert not (tmp_path / "run" / "examples" / "examples.json").exists()


@pytest.mark.parametrize("kind", sorted(MENDED))
def test_mendable_images_can_be_skipped(tmp_path: Path, kind: str) -> None:
    name, make = BAD[kind][0]
    run = ingest(with_bad(tmp_path / "data", name, make()), tmp_path, policies={kind: "skip"})
    assert [(finding.key, finding.action) for finding in run.of_kind(kind)] == [(f"cats/{name}", "skipped")]
    assert f"cats/{name}" not in run.splits()


def test_rotated_pixels_are_turned_upright(tmp_path: Path) -> None:
    run = ingest(with_bad(tmp_path / "data", "side.jpg", rotated()), tmp_path)
    stored = run.image("cats/side.jpg")
    assert stored.size == (40, 48)
    assert stored.getexif().get(0x0112, 1) == 1
    upright = np.asarray(picture(904).rotate(-90, expand=True), dtype=int)
    assert np.abs(np.asarray(stored, dtype=int) - upright).mean() < 6
    assert run.row("cats/side.jpg")["image/height"] == 48


def test_sixteen_bits_keep_their_whole_range(tmp_path: Path) -> None:
    pixels = np.asarray(ingest(with_bad(tmp_path / "data", "deep.png", sixteen_bit()), tmp_path).image("cats/deep.png"))
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert np.abs(pixels[0, :, 0].astype(int) - np.linspace(0, 255, 64)).max() <= 1


def test_transparent_becomes_white(tmp_path: Path) -> None:
    image = ingest(with_bad(tmp_path / "data", "glass.png", half_transparent()), tmp_path).image("cats/glass.png")
    assert image.getpixel((5, 5)) == (255, 255, 255)


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    red = Image.new("RGB", (40, 40), (230, 20, 30))
    red.paste((20, 200, 30), (0, 0, 20, 40))
    image = ingest(with_bad(tmp_path / "data", "red.jpg", encoded(red.convert("CMYK"), quality=95)), tmp_path).image("cats/red.jpg")
    assert np.abs(np.asarray(image.getpixel((35, 20))) - (230, 20, 30)).max() < 12


def test_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    image = ingest(with_bad(tmp_path / "data", "moves.gif", animated()), tmp_path).image("cats/moves.gif").convert("RGB")
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(picture(901), dtype=int)).mean() < 12


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP"])
def test_other_formats_are_stored_as_png_or_jpeg(tmp_path: Path, kind: str) -> None:
    run = ingest(with_bad(tmp_path / "data", f"x.{kind.lower()}", encoded(picture(900), kind)), tmp_path)
    image = run.image(f"cats/x.{kind.lower()}")
    assert image.format == ("JPEG" if kind == "WEBP" else "PNG")
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(picture(900), dtype=int)).mean() < 5
    assert run.examples.problems == {}


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_palette_and_gray_pngs_can_be_decoded_by_everybody(tmp_path: Path, mode: str) -> None:
    run = ingest(with_bad(tmp_path / "data", "x.png", encoded(picture(900).convert(mode), "PNG")), tmp_path)
    assert run.image("cats/x.png").mode == ("L" if mode == "L" else "RGB")


def test_large_originals_are_scaled_once(tmp_path: Path) -> None:
    class_folders(tmp_path / "data")
    originals = {"wide.jpg": (900, 300), "tall.png": (200, 500), "small.jpg": (100, 90)}
    for number, (name, size) in enumerate(originals.items()):
        kind = "PNG" if name.endswith("png") else "JPEG"
        (tmp_path / "data" / "cats" / name).write_bytes(encoded(picture(900 + number, size), kind))
    run = ingest(tmp_path / "data", tmp_path, shorter_side=100)
    assert {name: run.image(f"cats/{name}").size for name in originals} == {
        "wide.jpg": (300, 100),
        "tall.png": (100, 250),
        "small.jpg": (100, 90),
    }
    assert run.image("cats/tall.png").format == "JPEG"
    assert run.ingested.scaled == 2
    expected = np.asarray(picture(900, (900, 300)).resize((300, 100), Image.Resampling.LANCZOS), dtype=int)
    assert np.abs(np.asarray(run.image("cats/wide.jpg"), dtype=int) - expected).mean() < 4
    again = ingest(tmp_path / "data", tmp_path, "again", shorter_side=100)
    assert again.examples.digest == run.examples.digest


def test_a_bomb_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    from components.ingest.picture import Rejected, plain_picture
    from components.ingest.settings import IngestSettings

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert plain_picture(png_header(10_000, 9_999), IngestSettings()) == Rejected("too_large", "10000×9999 pixels")


def test_big_files_are_not_even_read(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    with (data / "cats" / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)
    run = ingest(data, tmp_path)
    assert run.names("too_large") == ["cats/huge.jpg"]


def test_unreadable_files_are_skipped_and_named(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    (data / "cats" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(data / "cats" / "pipe.jpg")
    run = ingest(data, tmp_path)
    assert run.names("unreadable_file") == ["cats/gone.jpg", "cats/pipe.jpg"]
    with pytest.raises(DataError, match="unreadable_file"):
        ingest(data, tmp_path, "refused", policies={"unreadable_file": "refuse"})


def test_unreadable_folders_are_refused_or_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = class_folders(tmp_path / "data", classes=("cats", "cows", "dogs"))
    listing = os.scandir

    def denied(path: str) -> object:
        # Permissions stop nobody who runs as root, as containers do; so the operating system's answer is given here.
        if str(path).endswith("cows"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr("os.scandir", denied)
    with pytest.raises(DataError, match="cows"):
        ingest(data, tmp_path)
    run = ingest(data, tmp_path, "skipped", policies={"unreadable_folder": "skip"})
    assert run.names("unreadable_folder") == ["cows"]
    assert run.names("empty_class") == ["cows"]
    assert run.examples.labels == ["cats", "dogs"]


def test_empty_classes_are_dropped_or_refused(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    (data / "cows").mkdir()
    (data / "pigs").mkdir()
    (data / "pigs" / "bad.jpg").write_bytes(b"no picture")
    run = ingest(data, tmp_path)
    assert run.names("empty_class") == ["cows", "pigs"]
    assert run.examples.labels == ["cats", "dogs"]
    with pytest.raises(DataError, match=r"ingest\.policies\.empty_class: .*cows.*pigs"):
        ingest(data, tmp_path, "refused", policies={"empty_class": "refuse"})


def test_images_outside_any_class_are_named_and_other_files_ignored(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    (data / "stray.jpg").write_bytes(encoded(picture(900)))
    (data / "README.md").write_text("about")
    (data / "cats" / ".hidden").write_text("x")
    (data / "cats" / "Thumbs.db").write_text("x")
    run = ingest(data, tmp_path)
    assert [(finding.kind, finding.key) for finding in run.ingested.findings] == [("no_label", "stray.jpg")]


def test_odd_file_names_survive(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    names = [b"caf\xe9.jpg", "猫 🐈.jpg".encode(), b"new\nline.jpg", b'quote".jpg']
    for number, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(data / "cats") + b"/" + name)).write_bytes(encoded(picture(900 + number)))
    keys = ingest(data, tmp_path).splits()
    assert {"cats/caf\\xe9.jpg", "cats/猫 🐈.jpg", "cats/new\nline.jpg", 'cats/quote".jpg'} <= keys.keys()


def test_everything_at_once_is_survived(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    for _, name, make in CASES:
        (data / "dogs" / name).write_bytes(make())
    run = ingest(data, tmp_path, duplicate_distance=-1)
    assert {kind: count for kind, count in run.examples.problems.items() if kind != "duplicate"} == {k: len(v) for k, v in BAD.items()}


def test_only_bad_images_say_so(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no usable image.*cats/x\.jpg.*dogs/x\.jpg"):
        ingest(tmp_path / "data", tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_random_damage_never_crashes(tmp_path: Path) -> None:
    """Bytes of real files, hit at random: each is either decoded or rejected with a kind."""
    from components.ingest.picture import Picture, Rejected, plain_picture
    from components.ingest.settings import IngestSettings

    rng = np.random.default_rng(7)
    kinds: set[str] = set()
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = np.frombuffer(encoded(picture(1), kind), np.uint8)
        for _ in range(60):
            hit = whole.copy()
            hit[rng.integers(0, len(hit), rng.integers(1, 12))] = rng.integers(0, 256)
            outcome = plain_picture(hit[: rng.integers(1, len(hit) + 1)].tobytes(), IngestSettings())
            assert isinstance(outcome, Picture | Rejected)
            kinds.add(outcome.kind if isinstance(outcome, Rejected) else "fine")
    assert {"truncated", "fine"} <= kinds


def test_no_temporary_files_are_left(tmp_path: Path) -> None:
    data, scratch = class_folders(tmp_path / "data"), tmp_path / "scratch"
    scratch.mkdir()
    code = f"from pathlib import Path\nfrom tests.unit.ingest_runs import ingest\ningest({str(data)!r}, Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "TMPDIR": str(scratch)}, capture_output=True)
    assert list(scratch.iterdir()) == []
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["examples", "store"]
