"""`dual images` as it is typed."""

import json
from pathlib import Path

from click.testing import CliRunner

from pipelines.cli import cli
from pipelines.compile_images import read_build
from tests.mirror.fake_registry import Stored
from tests.mirror.pieces import add_image


def dual(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["images", *words])
    return done.exit_code, done.stdout, done.stderr


def site(tmp_path: Path, here: Stored) -> tuple[list[str], str]:
    """A package and the builds of its image, as arguments; the image's digest."""
    digest = add_image(here, "team/dual-trainer", "1", [b"layer" * 1000])
    (tmp_path / "dual.yaml").write_text("deploymentSpec: {executors: {exec-ingest: {container: {image: dual-trainer}}}}\n")
    builds = {"builds": [{"imageName": "dual-trainer", "tag": f"{here.address}/team/dual-trainer:1@{digest}"}]}
    (tmp_path / "build.json").write_text(json.dumps(builds))
    return [str(tmp_path / "dual.yaml"), "--images", str(tmp_path / "build.json")], digest


def test_list_prints_each_image_and_what_needs_it(here: Stored, tmp_path: Path) -> None:
    words, digest = site(tmp_path, here)
    image = f"{here.address}/team/dual-trainer:1@{digest}"
    assert dual("list", *words) == (0, f"{image}\n    {words[0]}: exec-ingest\n", "")
    code, out, _ = dual("list", *words, "--json")
    assert (code, json.loads(out)["image"], json.loads(out)["name"]) == (0, image, "dual-trainer")
    assert here.requests == [], "a list asks no registry"


def test_mirror_over_an_archive_ends_with_a_map_that_compile_reads(here: Stored, there: Stored, tmp_path: Path) -> None:
    words, digest = site(tmp_path, here)
    archive, mapped = f"oci-archive:{tmp_path / 'images.tar'}", tmp_path / "mirrored.json"
    assert dual("mirror", *words, "--to", archive, "--plain-http", here.address)[0] == 0
    code, out, _ = dual(
        "mirror", "--from", archive, "--to", f"{there.address}/dual", "--plain-http", there.address, "--map", str(mapped), "--json"
    )
    image = f"{there.address}/dual/dual-trainer:1@{digest}"
    assert (code, json.loads(out)["image"]) == (0, image)
    assert read_build(mapped).references == {"dual-trainer": image}


def test_what_is_wrong_is_said_in_one_line_and_exits_2(here: Stored, tmp_path: Path) -> None:
    words, _ = site(tmp_path, here)
    for target in ("nowhere", "oci:"):
        code, _, err = dual("mirror", *words, "--to", target)
        assert (code, err.count("\n")) == (2, 1), err
    code, _, err = dual("mirror", words[0], "--to", "registry.example.com/dual")
    assert code == 2
    assert "--images build.json" in err
