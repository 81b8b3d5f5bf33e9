"""Which images a site needs, found in what it deploys."""

import json
from pathlib import Path

import pytest

from components.core.errors import UsageError
from pipelines.mirror.inventory import find_needed
from pipelines.mirror.mirror import needed_images

PACKAGE = """
pipelineInfo: {name: dual-deploy}
deploymentSpec:
  executors:
    exec-ingest: {container: {image: dual-trainer, args: ["--image", "no/image:1"]}}
    exec-report: {container: {image: dual-deployer}}
    exec-choice: {container: {image: "{{$.inputs.parameters['image']}}"}}
---
platforms: {kubernetes: {deploymentSpec: {}}}
"""
KUBEFLOW = """
kind: Deployment
metadata: {name: ml-pipeline}
spec:
  template:
    spec:
      containers:
      - {name: api, image: "ghcr.io/kubeflow/kfp-api-server:2", env: [
          {name: V2_DRIVER_IMAGE, value: "ghcr.io/kubeflow/kfp-driver:2"}, {name: OTHER_IMAGE_NAME, value: nothing},
          {name: V2_LAUNCHER_IMAGE, value: "ghcr.io/kubeflow/kfp-launcher:2"}]}
---
kind: Deployment
metadata: {name: workflow-controller}
spec:
  template:
    spec:
      containers: [{image: "quay.io/argoproj/workflow-controller:4", args: [--executor-image, "quay.io/argoproj/argoexec:4"]}]
"""


def write(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_a_compiled_pipeline_names_ours_as_the_builds_pin_them(tmp_path: Path) -> None:
    package = write(tmp_path, "dual.yaml", PACKAGE)
    plain = find_needed([package], {})
    assert [each.image for each in plain] == ["dual-deployer", "dual-trainer"]
    pinned = find_needed([package], {"dual-trainer": "r.example.com/dual-trainer:1@sha256:0"})
    assert [(each.name, each.image) for each in pinned] == [
        ("dual-deployer", "dual-deployer"),
        ("dual-trainer", "r.example.com/dual-trainer:1@sha256:0"),
    ]
    assert plain[1].users == ["pipeline dual-deploy: exec-ingest"]


def test_kubeflows_own_manifests_name_what_drives_launches_and_accompanies_every_task(tmp_path: Path) -> None:
    found = {each.image: each.users for each in find_needed([write(tmp_path, "kfp.yaml", KUBEFLOW)], {})}
    assert list(found) == [
        "ghcr.io/kubeflow/kfp-api-server:2",
        "ghcr.io/kubeflow/kfp-driver:2",
        "ghcr.io/kubeflow/kfp-launcher:2",
        "quay.io/argoproj/argoexec:4",
        "quay.io/argoproj/workflow-controller:4",
    ]
    assert found["ghcr.io/kubeflow/kfp-driver:2"] == ["Deployment ml-pipeline"]


def test_a_volume_made_of_an_image_counts_and_each_image_is_named_once(tmp_path: Path) -> None:
    spec = {"containers": [{"image": "r/a.b:1"}, {"image": "r/a.b:1"}], "volumes": [{"image": {"reference": "r.example.com/v:1"}}]}
    pod = {"kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    source = write(tmp_path, "pods.json", json.dumps({"items": [pod, {**pod, "metadata": {"name": "q"}}]}))
    assert {each.image: each.users for each in find_needed([source], {})} == {
        "r.example.com/v:1": ["Pod p", "Pod q"],
        "r/a.b:1": ["Pod p", "Pod q"],
    }


def test_a_list_of_builds_names_its_images(tmp_path: Path) -> None:
    image = f"r.example.com/dual-server:1@sha256:{'0' * 64}"
    path = Path(write(tmp_path, "build.json", json.dumps({"builds": [{"imageName": "dual-server", "tag": image}]})))
    assert [each.image for each in needed_images([], path)] == [image]
    with pytest.raises(UsageError, match="nothing to look into"):
        needed_images([], None)


@pytest.mark.parametrize(
    ("name", "text", "message"), [("a.yaml", "{", "neither YAML nor JSON"), ("a.yaml", "x: [", "neither"), ("", "", "can't be")]
)
def test_what_can_not_be_read_is_said(tmp_path: Path, name: str, text: str, message: str) -> None:
    source = write(tmp_path, name, text) if name else str(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=message):
        find_needed([source], {})


def test_a_folder_is_rendered_by_the_tool_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    write(tmp_path, "rendered.yaml", KUBEFLOW)
    for name, verb in (("kustomize", "build"), ("kubectl", "kustomize")):
        with pytest.raises(UsageError, match="neither kubectl nor kustomize"):
            find_needed([str(tmp_path)], {})
        tool = tmp_path / "bin" / name
        tool.write_text(f'#!/bin/sh\n[ "$1" = {verb} ] && exec /bin/cat "$2/rendered.yaml"\n')
        tool.chmod(0o755)
        assert len(find_needed([str(tmp_path)], {})) == 5
        tool.write_text("#!/bin/sh\necho no such base >&2; exit 1\n")
        with pytest.raises(UsageError, match="no such base"):
            find_needed([str(tmp_path)], {})
        tool.unlink()
