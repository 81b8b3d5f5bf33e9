"""Logical images become what a registry has, by digest."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import UsageError
from pipelines.compile import compile_pipeline
from pipelines.compile_images import Images, logical_images, read_build, tagged
from pipelines.targets import make_target
from tests.pipeline.compiled import documents

TRAINER = f"registry.example/team/dual-trainer:v3@sha256:{'a' * 64}"
DEPLOYER = f"registry.example/team/dual-deployer@sha256:{'b' * 64}"


def build(folder: Path, **images: str) -> Path:
    """A build.json as `skaffold build --file-output` writes it."""
    path = folder / "build.json"
    path.write_text(json.dumps({"builds": [{"imageName": name.replace("_", "-"), "tag": tag} for name, tag in images.items()]}))
    return path


def images_in(package: str) -> set[str]:
    spec: Any = next(iter(yaml.safe_load_all(package)))
    return {executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()}


def test_every_image_is_pinned_by_its_digest(tmp_path: Path) -> None:
    compiled = compile_pipeline(make_target("kubeflow"), read_build(build(tmp_path, dual_trainer=TRAINER, dual_deployer=DEPLOYER)))
    assert images_in(compiled.text) == {TRAINER, DEPLOYER}
    assert compiled.images == {"dual-trainer": TRAINER, "dual-deployer": DEPLOYER}
    assert compiled.unpinned == []


def test_nothing_else_changes(tmp_path: Path) -> None:
    compiled = compile_pipeline(make_target("kubeflow"), read_build(build(tmp_path, dual_trainer=TRAINER, dual_deployer=DEPLOYER)))
    back = compiled.text.replace(TRAINER, "dual-trainer").replace(DEPLOYER, "dual-deployer")
    assert list(yaml.safe_load_all(back)) == documents("kubeflow")


def test_images_of_custom_jobs_are_found_too() -> None:
    payload = {"worker_pool_specs": [{"container_spec": {"image_uri": "dual-trainer"}}, {"containerSpec": {"imageUri": "dual-trainer"}}]}
    document = {"deploymentSpec": {"executors": {"exec-x": {"container": {"image": "dual-deployer", "args": [payload]}}}}}
    Images("x", {"dual-trainer": TRAINER, "dual-deployer": DEPLOYER}).pin([document])
    assert json.dumps(document).count(TRAINER) == 2
    assert json.dumps(document).count(DEPLOYER) == 1


def test_an_image_that_is_named_already_is_left_alone(tmp_path: Path) -> None:
    document = {"image": "ghcr.io/other/image:1", "args": [{"image": "{{$.inputs.parameters['x']}}"}]}
    assert logical_images([document]) == set()
    Images("x", {}).pin([document])
    assert document["image"] == "ghcr.io/other/image:1"


def test_without_images_the_result_says_what_no_cluster_can_pull() -> None:
    assert compile_pipeline(make_target("kubeflow")).unpinned == ["dual-deployer", "dual-trainer"]


def test_an_artifact_may_be_named_with_its_registry(tmp_path: Path) -> None:
    path = tmp_path / "build.json"
    path.write_text(json.dumps({"builds": [{"imageName": "europe-docker.pkg.dev/p/r/dual-trainer", "tag": TRAINER}]}))
    assert read_build(path).references == {"dual-trainer": TRAINER}


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    found = read_build(build(tmp_path, dual_trainer=TRAINER))
    with pytest.raises(UsageError) as caught:
        compile_pipeline(make_target("kubeflow"), found)
    assert all(word in str(caught.value) for word in ("build.json", "'dual-deployer'", "only dual-trainer", "skaffold build")), caught.value


def test_a_tag_without_digest_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    path = build(tmp_path, dual_trainer="registry/dual-trainer:v1")
    with pytest.raises(UsageError, match=r"'dual-trainer' has no digest: 'registry/dual-trainer:v1'.*--allow-tags"):
        read_build(path)
    assert read_build(path, allow_tags=True).references == {"dual-trainer": "registry/dual-trainer:v1"}


@pytest.mark.parametrize("reference", ["dual-trainer", "registry/dual-trainer@sha256:abc", "a b:c", ""])
def test_what_is_no_image_is_refused_even_so(reference: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no digest"):
        read_build(build(tmp_path, dual_trainer=reference), allow_tags=True)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"builds": [{}]}', '{"builds": 3}', "builds: []"])
def test_what_skaffold_did_not_write_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "build.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"build\.json: is no build output of skaffold"):
        read_build(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.json"):
        read_build(tmp_path / "nowhere.json")


def test_one_registry_and_tag_for_all() -> None:
    compiled = compile_pipeline(make_target("vertex"), tagged("europe-docker.pkg.dev/p/r/", "v1"))
    assert images_in(compiled.text) == {"europe-docker.pkg.dev/p/r/dual-trainer:v1", "europe-docker.pkg.dev/p/r/dual-deployer:v1"}


@pytest.mark.parametrize(("registry", "tag"), [("https://x", "v1"), ("x", "v 1"), ("x", ""), ("x", "v1@sha256:abc"), ("{x}", "v1")])
def test_a_registry_that_is_none_is_refused(registry: str, tag: str) -> None:
    with pytest.raises(UsageError, match="is no image"):
        tagged(registry, tag)
