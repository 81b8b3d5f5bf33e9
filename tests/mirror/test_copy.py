"""Images between registries, folders and archives: digest for digest, only what is missing, damage found, interruptions survived."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from components.core.download import Patience
from components.core.errors import DataError, DualError, MissingObjectError, UsageError
from pipelines.mirror.mirror import Mirrored, mirror_images, write_map
from pipelines.mirror.place import Registries
from tests.mirror.fake_registry import Stored
from tests.mirror.pieces import add_image, add_index

QUICK = Patience(attempts=3, first_wait=0.01, timeout=5)
BASE, CODE = b"base" * 100_000, b"code" * 100


def manifest(tmp_path: Path, *images: str) -> str:
    """A file that names images as a pod would."""
    path = tmp_path / "pods.json"
    path.write_text(json.dumps({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"image": image} for image in images]}}))
    return str(path)


def mirror(source: str | None, target: str, *registries: Stored, **more: Any) -> list[Mirrored]:
    where = Registries([each.address for each in registries], QUICK)
    return mirror_images([source] if source else [], None, more.pop("archive", None), target, where, say=lambda _: None, **more)


def test_an_image_arrives_whole_under_its_tag_and_digest(here: Stored, there: Stored, tmp_path: Path) -> None:
    digest = add_image(here, "team/app", "1", [BASE, CODE])
    (done,) = mirror(manifest(tmp_path, f"{here.address}/team/app:1"), f"{there.address}/copies", here, there)
    assert str(done.copied.image) == f"{there.address}/copies/team/app:1@{digest}"
    assert there.manifests["copies/team/app", "1"] == here.manifests["team/app", "1"]
    assert {there.blobs[each] for _, each in there.owned} == set(here.blobs.values())
    assert done.copied.moved == done.copied.size > len(BASE)
    assert there.uploads == {}


def test_only_what_changed_moves_the_second_time(here: Stored, there: Stored, tmp_path: Path) -> None:
    add_image(here, "app", "1", [BASE, CODE])
    add_image(here, "app", "2", [BASE, b"new code"])
    mirror(manifest(tmp_path, f"{here.address}/app:1"), there.address, here, there)
    (done,) = mirror(manifest(tmp_path, f"{here.address}/app:2"), there.address, here, there)
    assert 0 < done.copied.moved < 200
    (again,) = mirror(manifest(tmp_path, f"{here.address}/app:2"), there.address, here, there)
    assert again.copied.moved == 0


def test_layers_that_the_registry_has_elsewhere_are_mounted(here: Stored, tmp_path: Path) -> None:
    add_image(here, "one/app", "1", [BASE])
    (done,) = mirror(manifest(tmp_path, f"{here.address}/one/app:1"), f"{here.address}/two", here)
    assert (done.copied.moved, here.pushed("PATCH")) == (0, [])
    here.mounts = False
    (done,) = mirror(manifest(tmp_path, f"{here.address}/one/app:1"), f"{here.address}/three", here)
    assert done.copied.moved == done.copied.size
    assert here.uploads == {}


def test_an_index_arrives_with_all_its_platforms(here: Stored, there: Stored, tmp_path: Path) -> None:
    digest = add_index(here, "app", "1", {"linux/amd64": BASE, "linux/arm64": CODE})
    (done,) = mirror(manifest(tmp_path, f"{here.address}/app@{digest}"), there.address, here, there)
    assert done.copied.image.digest == digest
    assert {BASE, CODE} <= set(there.blobs.values())
    # Without a tag it would be swept up.
    assert ("app", f"sha256-{digest[7:19]}") in there.manifests


def test_one_platform_of_an_index(here: Stored, there: Stored, tmp_path: Path) -> None:
    index = add_index(here, "app", "1", {"linux/amd64": BASE, "linux/arm64": CODE})
    (done,) = mirror(manifest(tmp_path, f"{here.address}/app:1"), there.address, here, there, platform="linux/arm64")
    assert done.copied.image.digest != index
    assert CODE in there.blobs.values()
    assert BASE not in there.blobs.values()
    with pytest.raises(UsageError, match=r"no platform 'linux/riscv64'.*linux/amd64, linux/arm64"):
        mirror(manifest(tmp_path, f"{here.address}/app:1"), there.address, here, there, platform="linux/riscv64")


@pytest.mark.parametrize("kind", ["oci:images", "oci-archive:images.tar"])
def test_over_an_air_gap(here: Stored, there: Stored, tmp_path: Path, kind: str) -> None:
    scheme, name = kind.split(":")
    digest = add_index(here, "team/app", "1", {"linux/amd64": BASE, "linux/arm64": CODE})
    other = add_image(here, "dual/dual-server", "2", [BASE], docker=True)
    place = f"{scheme}:{tmp_path / name}"
    mirror(manifest(tmp_path, f"{here.address}/team/app:1", f"{here.address}/dual/dual-server:2"), place, here)
    done = mirror(None, f"{there.address}/mirror", there, archive=place)
    assert {each.name: each.copied.image.digest for each in done} == {f"{here.address}/team/app": digest, "dual-server": other}
    assert there.manifests["mirror/team/app", "1"] == here.manifests["team/app", "1"]
    assert there.manifests["mirror/dual-server", "2"] == here.manifests["dual/dual-server", "2"]
    # Shared between images, there once.
    moved = [each.copied.moved for each in done]
    assert sum(moved) < sum(each.copied.size for each in done)


def test_an_archive_is_an_oci_layout_and_the_same_images_give_the_same_bytes(here: Stored, tmp_path: Path) -> None:
    digest = add_image(here, "team/app", "1", [BASE])
    source = manifest(tmp_path, f"{here.address}/team/app:1")
    for name in ("a.tar", "b.tar"):
        mirror(source, f"oci-archive:{tmp_path / name}", here)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = archive.getnames()
        index = json.load(archive.extractfile("index.json"))  # pyright: ignore[reportArgumentType]
    assert f"blobs/sha256/{digest[7:]}" in names
    assert names[0] == "oci-layout"
    (entry,) = index["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == f"{here.address}/team/app:1"


def test_a_folder_is_added_to_and_an_archive_is_left_alone_on_failure(here: Stored, tmp_path: Path) -> None:
    add_image(here, "one", "1", [BASE])
    add_image(here, "two", "1", [BASE])
    for name in ("one", "two"):
        mirror(manifest(tmp_path, f"{here.address}/{name}:1"), f"oci:{tmp_path / 'images'}", here)
    assert len(json.loads((tmp_path / "images" / "index.json").read_text())["manifests"]) == 2
    mirror(manifest(tmp_path, f"{here.address}/one:1"), f"oci-archive:{tmp_path / 'images.tar'}", here)
    before = (tmp_path / "images.tar").read_bytes()
    with pytest.raises(MissingObjectError):
        mirror(manifest(tmp_path, f"{here.address}/two:9"), f"oci-archive:{tmp_path / 'images.tar'}", here)
    assert (tmp_path / "images.tar").read_bytes() == before
    assert [path.name for path in tmp_path.glob(".images*")] == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_goes_on_where_it_stopped(here: Stored, there: Stored, tmp_path: Path, ranges: bool) -> None:
    digest = add_image(here, "app", "1", [BASE])
    here.cut_reads_after, here.ranges = [150_000, 100_000], ranges
    (done,) = mirror(manifest(tmp_path, f"{here.address}/app:1"), there.address, here, there)
    assert done.copied.image.digest == digest
    assert BASE in there.blobs.values()
    # A registry that gives no parts sends everything again, and what is known of it is passed over.
    assert (here.sent == done.copied.size) == ranges


def test_a_layer_that_failed_in_an_archive_is_written_over(here: Stored, tmp_path: Path) -> None:
    add_image(here, "app", "1", [BASE])
    source = manifest(tmp_path, f"{here.address}/app:1")
    mirror(source, f"oci-archive:{tmp_path / 'quiet.tar'}", here)
    # Some of it, then nothing for as often as a download is continued: the layer is begun again.
    here.cut_reads_after = [150_000, 0, 0, 0]
    mirror(source, f"oci-archive:{tmp_path / 'troubled.tar'}", here)
    assert (tmp_path / "troubled.tar").read_bytes() == (tmp_path / "quiet.tar").read_bytes()


def test_passing_failures_are_tried_again_and_lasting_ones_said(here: Stored, there: Stored, tmp_path: Path) -> None:
    add_image(here, "app", "1", [BASE])
    here.fail, there.fail = [503, 429], [500]
    mirror(manifest(tmp_path, f"{here.address}/app:1"), there.address, here, there)
    here.fail = [503] * 9
    with pytest.raises(DualError, match=r"answered 503.*3 times in a row"):
        mirror(manifest(tmp_path, f"{here.address}/app:1"), there.address, here, there)


@pytest.mark.parametrize("target", ["registry", "folder", "archive"])
def test_a_damaged_layer_is_found_and_not_kept(here: Stored, there: Stored, tmp_path: Path, target: str) -> None:
    add_image(here, "app", "1", [BASE])
    here.damage = b"X"
    places = {"registry": there.address, "folder": f"oci:{tmp_path / 'i'}", "archive": f"oci-archive:{tmp_path / 'i.tar'}"}
    with pytest.raises(DataError, match="came damaged"):
        mirror(manifest(tmp_path, f"{here.address}/app:1"), places[target], here, there)
    assert there.manifests == {}
    assert not [path for path in (tmp_path / "i").rglob("*") if path.is_file()]
    assert not (tmp_path / "i.tar").exists()


def test_a_manifest_that_is_not_the_one_asked_for_is_refused(here: Stored, there: Stored, tmp_path: Path) -> None:
    digest = add_image(here, "app", "1", [BASE])
    kind, body = here.manifests["app", digest]
    here.manifests["app", digest] = (kind, body + b"\n")
    with pytest.raises(DataError, match="asked for manifest"):
        mirror(manifest(tmp_path, f"{here.address}/app@{digest}"), there.address, here, there)


def test_two_images_never_get_one_name(here: Stored, there: Stored, tmp_path: Path) -> None:
    source = manifest(tmp_path, f"{here.address}/app:1", "docker.io/app/app:1", "quay.io/app/app:1")
    with pytest.raises(UsageError, match="would both become"):
        mirror(source, there.address, here, there)
    assert here.requests == []


def test_the_map_is_what_compile_reads(here: Stored, there: Stored, tmp_path: Path) -> None:
    digest = add_image(here, "team/dual-trainer", "1", [BASE])
    builds = tmp_path / "build.json"
    builds.write_text(json.dumps({"builds": [{"imageName": "dual-trainer", "tag": f"{here.address}/team/dual-trainer:1@{digest}"}]}))
    pod = tmp_path / "package.yaml"
    pod.write_text("deploymentSpec: {executors: {exec-ingest: {container: {image: dual-trainer}}}}")
    where = Registries([here.address, there.address], QUICK)
    done = mirror_images([str(pod)], builds, None, f"{there.address}/dual", where, say=lambda _: None)
    write_map(done, tmp_path / "mirrored.json")
    mapped = json.loads((tmp_path / "mirrored.json").read_text())
    assert mapped == {"builds": [{"imageName": "dual-trainer", "tag": f"{there.address}/dual/dual-trainer:1@{digest}"}]}
    with pytest.raises(UsageError, match="is a logical image"):
        mirror(str(pod), there.address, here, there)
