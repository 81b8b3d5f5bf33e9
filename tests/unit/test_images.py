"""The images' recipes, and what builds them: Dockerfiles, skaffold.yaml, cloudbuild.yaml and the scripts that these call."""

import copy
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.compile_images import read_build
from pipelines.image_check import IMAGES, modules_of
from pipelines.mirror.inventory import OURS
from tests.conftest import ROOT
from tests.unit.skaffold_schema import CONFIG

Json = dict[str, Any]
DOCKERFILES = {path.parent.name: path.read_text() for path in sorted((ROOT / "images").glob("*/Dockerfile"))}
SKAFFOLD: Json = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
PROFILES = {profile["name"]: profile for profile in SKAFFOLD["profiles"]}
DIFFERS = ("--extra ", "LD_LIBRARY_PATH", "image.title", "image.description", "CMD [", "EXPOSE", "# Differs: the extras.")


def recipe(name: str) -> list[str]:
    """A Dockerfile without what may differ: what is marked, to the next comment, and single lines."""
    lines: list[str] = []
    marked = False
    for line in DOCKERFILES[name].partition("FROM ")[2].splitlines():
        if line.startswith("#") or not line:
            marked = line.startswith("# Differs")
        if not marked and not any(word in line for word in DIFFERS):
            lines.append(line)
    return lines


def last_stage(name: str) -> str:
    return DOCKERFILES[name].rpartition("\nFROM ")[2]


def test_the_dockerfiles_are_one_recipe() -> None:
    assert set(DOCKERFILES) == set(IMAGES) == set(OURS) - {"dual-trainer-gpu"}
    assert recipe("dual-trainer") == recipe("dual-deployer") == recipe("dual-server")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_a_number_and_probes_nothing_by_itself(name: str) -> None:
    assert re.search(r"^USER 10001:10001$", last_stage(name), re.M)
    assert not re.search(r"^(HEALTHCHECK|ENTRYPOINT|VOLUME)", DOCKERFILES[name], re.M)
    assert f'org.opencontainers.image.title="{name}"' in last_stage(name)
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILES[name], re.M))
    assert bases == {"python:3.11-slim", "tools", "dependencies"}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_code_is_the_last_layer_and_nothing_of_it_is_below(name: str) -> None:
    assert last_stage(name).count("COPY ") == 1
    stages = DOCKERFILES[name].split("\nFROM ")
    with_code = [stage.splitlines()[0] for stage in stages if "COPY components" in stage]
    assert with_code == ["tools AS code"]


def test_the_context_is_what_the_dockerfiles_copy_and_no_more() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    copied = {
        word for text in DOCKERFILES.values() for each in re.findall(r"^COPY (?!--from)(.+)$", text, re.M) for word in each.split()[:-1]
    }
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied


def test_the_check_looks_at_the_modules_of_every_step() -> None:
    components = {path.parent.name for path in (ROOT / "components").glob("*/component.py")}
    modules = {module for name in IMAGES for module in modules_of(name)}
    looked_at = {module.split(".")[1] for module in modules if module.startswith("components.")}
    # A shard's work is done by the module of the step that it is a shard of.
    assert components - looked_at == {"plan_predictions", *(step for step in components if step.endswith("_shard"))}
    assert {"components.ingest.pieces", "components.evaluate_cloud.evaluate", "components.predict.predict"} <= modules
    assert "components.core.record" in modules_of("dual-deployer")
    assert not any("train" in module for module in modules_of("dual-deployer"))


def with_profile(name: str) -> Json:
    """skaffold.yaml as Skaffold sees it with this profile."""
    config, profile = copy.deepcopy(SKAFFOLD), copy.deepcopy(PROFILES[name])
    for stage in ("build", "manifests", "deploy", "verify", "portForward"):
        config[stage] = {**config[stage], **profile[stage]} if isinstance(profile.get(stage), dict) else config[stage]
    for each in profile.get("patches", []):
        *path, last = each["path"].strip("/").split("/")
        place: Any = config
        for key in path:
            place = place[int(key)] if isinstance(place, list) else place[key]
        if each["op"] == "remove":
            del place[last]
        elif isinstance(place, list):
            place.append(each["value"])
        else:
            place[last] = each["value"]
    return {key: value for key, value in config.items() if key != "profiles"}


def test_skaffold_knows_every_key() -> None:
    jsonschema.validate(SKAFFOLD, CONFIG)
    assert list(PROFILES) == ["local", "gke", "onprem", "buildah", "gpu", "pipeline", "server"]


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_makes_a_whole_configuration_of_things_that_are_there(name: str) -> None:
    config = with_profile(name)
    jsonschema.validate(config, CONFIG)
    names = [artifact["image"] for artifact in config["build"]["artifacts"]]
    assert set(names) <= set(OURS)
    for artifact in config["build"]["artifacts"]:
        docker, custom = artifact.get("docker", {}), artifact.get("custom", {})
        dockerfile = docker.get("dockerfile") or custom["dependencies"]["dockerfile"]["path"]
        assert dockerfile == f"images/{artifact['image'].removesuffix('-gpu')}/Dockerfile"
        if custom:
            assert custom["buildCommand"] == f"images/build-with-buildah {artifact['image']}"
    for path in config["manifests"]["kustomize"]["paths"]:
        assert (ROOT / path / "kustomization.yaml").is_file()
    for hook in config["deploy"]["kubectl"].get("hooks", {}).get("after", []):
        assert os.access(ROOT / hook["host"]["command"][0], os.X_OK)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_says_what_it_is_for_and_how_it_is_called(name: str) -> None:
    before = (ROOT / "skaffold.yaml").read_text().partition(f"  - name: {name}\n")[0].rsplit("\n\n", 1)[1]
    assert all(line.strip().startswith("#") for line in before.splitlines() if line.strip())
    assert re.search(rf"#   .*skaffold .*|PROFILE=\S*{name}", before)
    assert name in before


def test_each_check_runs_in_the_container_that_its_job_has() -> None:
    for test in SKAFFOLD["verify"]:
        job = yaml.safe_load((ROOT / test["executionMode"]["kubernetesCluster"]["jobManifestPath"]).read_text())
        assert [each["name"] for each in job["spec"]["template"]["spec"]["containers"]] == [test["container"]["name"]]
    assert {test["container"]["image"] for test in SKAFFOLD["verify"]} == set(DOCKERFILES)


def test_only_pods_that_last_get_files_synced() -> None:
    synced = [artifact["image"] for artifact in SKAFFOLD["build"]["artifacts"] if "sync" in artifact]
    assert synced == []
    (rule, *_) = PROFILES["server"]["build"]["artifacts"][0]["sync"]["manual"]
    assert rule == {"src": "serving/**/*.py", "dest": "/opt/code"}


def stand_in(folder: Path, name: str, body: str = "") -> None:
    """A program that writes down how it was called."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> "$CALLS"\n{body}\n')
    program.chmod(0o755)


def call(folder: Path, *command: str | Path, **environment: str) -> tuple[int, list[str], str]:
    """Exit code, calls of the stand-ins, and what was said."""
    calls = folder / "calls"
    calls.write_text("")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SKAFFOLD", "DUAL", "BUILD", "IMAGE", "PUSH"))}
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**clean, "PATH": path, "CALLS": str(calls), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, calls.read_text().splitlines(), done.stdout + done.stderr


def test_buildah_builds_pushes_and_is_told_the_platform(tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "buildah")
    script, image = ROOT / "images" / "build-with-buildah", "r.example.com/dual-server:1"
    said = {
        "IMAGE": image,
        "BUILD_CONTEXT": "/src",
        "PUSH_IMAGE": "true",
        "PLATFORMS": "linux/amd64",
        "BUILDAH_PUSH_OPTIONS": "--tls-verify=false",
    }
    code, calls, _ = call(tmp_path, script, "dual-server", **said)
    assert code == 0
    assert calls == [
        f"buildah build --layers --format oci --platform linux/amd64 --file /src/images/dual-server/Dockerfile --tag {image} /src",
        f"buildah push --tls-verify=false {image} docker://{image}",
    ]
    code, calls, _ = call(tmp_path, script, "dual-trainer", IMAGE=image, ACCELERATOR="gpu")
    assert (code, len(calls)) == (0, 1)
    assert "--build-arg ACCELERATOR=gpu" in calls[0]
    assert call(tmp_path, script, "dual-server", **{**said, "PLATFORMS": "linux/amd64,linux/arm64"})[0] == 2
    assert call(tmp_path, script, "dual-server")[0] != 0


def test_a_build_that_fails_pushes_nothing(tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "buildah", "exit 7")
    code, calls, _ = call(tmp_path, ROOT / "images" / "build-with-buildah", "dual-server", IMAGE="i:1", PUSH_IMAGE="true")
    assert (code, len(calls)) == (7, 1)


def test_after_a_deployment_the_pipeline_is_compiled_with_the_images_of_now_and_submitted(tmp_path: Path) -> None:
    for name in ("skaffold", "dual"):
        stand_in(tmp_path / "bin", name)
    script = ROOT / "images" / "resubmit"
    code, calls, said = call(tmp_path, script, SKAFFOLD_PROFILE="local,pipeline", DUAL_SITE="site.yaml", DUAL_SUBMIT_OPTIONS="--watch")
    assert code == 0, said
    assert calls == [
        "skaffold build --file-output .dual/dev/build.json",
        "dual compile --target kubeflow --images .dual/dev/build.json --allow-tags --config site.yaml -o .dual/dev/dual.yaml",
        "dual submit --target kubeflow --package .dual/dev/dual.yaml --watch",
    ]
    code, calls, said = call(tmp_path, script)
    assert (code != 0, calls) == (True, [])
    assert "SKAFFOLD_PROFILE" in said
    stand_in(tmp_path / "bin", "skaffold", "echo no space left; exit 1")
    code, calls, said = call(tmp_path, script, SKAFFOLD_PROFILE="local")
    assert (code, len(calls)) == (1, 1)
    assert "no space left" in said


def test_cloud_build_builds_each_image_and_records_its_digest(tmp_path: Path) -> None:
    build: Json = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())
    *images, push = build["steps"]
    assert [step["id"] for step in images] == push["waitFor"] == ["dual-trainer", "dual-deployer", "dual-server"]
    for step in images:
        assert f"--file=images/{step['id']}/Dockerfile" in step["args"]
        assert f"--tag=$_REPOSITORY/{step['id']}:$_TAG" in step["args"]
    assert "secret" not in json.dumps(build).lower()
    digest = "sha256:" + "0" * 64
    stand_in(
        tmp_path / "bin", "docker", f'[ "$1" = inspect ] && printf "other.example.com/x@sha256:1\\n%s@{digest}\\n\\n" "${{4%:*}}"; true'
    )
    # As Cloud Build does: its own variables first, then $$ becomes $.
    script = push["args"][1].replace("$_REPOSITORY", "r.example.com/dual").replace("$_TAG", "v1").replace("$$", "$")
    code, calls, said = call(tmp_path, "sh", "-euc", script)
    assert code == 0, said
    assert [each for each in calls if " push " in each] == [
        f"docker push --quiet --all-tags r.example.com/dual/{name}" for name in push["waitFor"]
    ]
    found = read_build(tmp_path / "build.json").references
    assert found == {name: f"r.example.com/dual/{name}:v1@{digest}" for name in push["waitFor"]}
