"""Every component of the compiled pipeline in its built image, one pod a step, as KFP runs it: executor entry point, compiled resources and
security context, as nobody on a read-only root, artifacts through a store on this machine. At the end the pair is served and published.
"""

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from components.configuration.layers import merge, parse_yaml
from components.core.channel import read_stored_channel
from components.core.record import read_records
from components.core.stores import open_store
from components.publish_mobile.key_folder import KeyFolder
from pipelines.image_check import IMAGES
from serving.rollout.cluster.objects import live_of
from tests.conftest import ROOT, tiny_jpeg
from tests.e2e.test_run import SMALL
from tests.live.cluster import REGISTRY, LiveCluster, image_tag
from tests.live.compiled import CompiledRun
from tests.live.pipeline_site import ARTIFACTS, PHOTOS, STORE, Steps, bucket_at, serving_namespace, site_file

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(2400)]

SHARED_OUT = ["plan-shards", *(f"{step}-shard-{number}" for step in ("ingest", "evaluate-cloud", "evaluate-mobile") for number in (1, 2))]
BATCH = ["plan-predictions", "predict-shard-1", "predict-shard-2", "predict"]
ORDER = [
    *("ingest", "validate-data", "train-cloud", "evaluate-cloud", "train-mobile", "quantize-mobile", "evaluate-mobile", "compare-pair"),
    *("validate-infra", "assemble-release", "roll-out-cloud", "publish-mobile", "report"),
]


def settings(namespace: str) -> dict[str, object]:
    """The end-to-end tests' small networks; the release is tried in a pod of the serving namespace."""
    nested: dict[str, object] = {}
    for key, value in SMALL.items():
        part: object = parse_yaml(str(value), where=key)
        for name in reversed(key.split(".")):
            part = {name: part}
        nested = merge(nested, part)  # pyright: ignore[reportArgumentType]
    pod = {"namespace": namespace, "ready_within": 240, "asked_within": 120, "poll_seconds": 0.5}
    return merge(nested, {"validate_infra": {"target": "kubernetes", "kubernetes": pod, "max_request_mb": 1}})


def compiled(site: Path, folder: Path, pipeline: str = "dual-deploy") -> list[dict[str, object]]:
    """What `dual compile` makes of a pipeline for this site, images by the tags in the cluster's registry."""
    output = folder / f"{pipeline}.yaml"
    words = [
        "compile",
        "--target",
        "kubeflow",
        "--pipeline",
        pipeline,
        "--config",
        site,
        "--registry",
        REGISTRY,
        "--tag",
        image_tag(),
        "-o",
        output,
    ]
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(output.read_text()))


def signing_key(folder: Path) -> str:
    """A key that `dual keys new` made."""
    keys = KeyFolder(folder / "keys")
    keys.new("test")
    return "".join(path.read_text() for path in (folder / "keys").glob("*.pem"))


def batch(documents: list[dict[str, object]], run_id: str, pods: Steps) -> list[str]:
    """Have twelve images in a bucket answered by the promoted release, in two shards; the steps that ran."""
    images = open_store(PHOTOS)
    for number in range(12):
        images.put(f"{number:02}.jpg", tiny_jpeg(number % 3, seed=number, side=64))
    run = CompiledRun(documents, run_id, ARTIFACTS, pods.execute)
    run.run(data=PHOTOS, batch_size=4, shard_images=6)
    return run.done


@pytest.fixture(scope="module")
def trainer(cluster: LiveCluster) -> str:
    return cluster.build_image("dual-trainer")


def test_every_component_runs_in_its_image_and_the_pair_ships(
    cluster: LiveCluster, trainer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = uuid4().hex[:6]
    serving, steps = f"served-{tail}", f"steps-{tail}"
    with (
        bucket_at(cluster) as url,
        serving_namespace(cluster, serving, steps, url, tmp_path / "overlay") as site,
        Steps(cluster, steps, url, signing_key(tmp_path)) as pods,
    ):
        config = site_file(tmp_path, url, serving, settings(serving))
        run = CompiledRun(compiled(config, tmp_path), f"run-{tail}", ARTIFACTS, pods.execute)
        run.run()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        predicted = batch(compiled(config, tmp_path, "dual-batch"), f"batch-{tail}", pods)
        sys.stdout.write(f"seconds of each step: { ({name: told['seconds'] for name, told in pods.told.items()}) }\n")
        assert sorted(run.done) == sorted([*ORDER, *SHARED_OUT])
        assert predicted == BATCH
        for name, told in pods.told.items():
            assert (name, told["user"], told["writable"]) == (name, [10001, 10001], [])
            assert set(told["mounts"]) <= {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
        store = open_store(STORE)
        records = read_records(store, run.run_id)
        assert {each.status for each in records.values()} == {"succeeded"}
        channel = read_stored_channel(store)
        assert channel is not None
        assert channel.is_signed()
        release = channel.channel.release
        assert live_of(site.api.get("Service", "classifier")).stable[:12] == release
        assert pods.told["assemble-release"]["output"]["parameterValues"]["Output"] == release
        lines = [json.loads(line) for line in store.get(f"predictions/batch-{tail}/predictions.jsonl").data.splitlines()]
        assert [line["image"] for line in lines] == [f"{number:02}.jpg" for number in range(12)]
        assert {line["release"] for line in lines} == {release}
        assert records["report"].data["story"]["outcome"] == "SHIPPED"
        limits = {name: pod["spec"]["containers"][0]["resources"] for name, pod in pods.pods.items()}
        assert limits["train-cloud"] == {"requests": {"cpu": "1", "memory": "2G"}, "limits": {"cpu": "8", "memory": "16G"}}


@pytest.mark.parametrize("user", [10001, 1000650000])
@pytest.mark.parametrize("name", sorted(IMAGES))
def test_an_image_holds_what_its_steps_import_for_anybody_on_a_read_only_root(
    cluster: LiveCluster, trainer: str, name: str, user: int
) -> None:
    job = yaml.safe_load((ROOT / "images" / "verify-job.yaml").read_text())
    spec = job["spec"]["template"]["spec"]
    spec["serviceAccountName"], spec["automountServiceAccountToken"] = "default", False
    # OpenShift gives each namespace a range of users, all of group 0.
    spec["securityContext"] |= {"runAsUser": user, "runAsGroup": 0 if user > 65535 else user}
    spec["containers"][0] |= {
        "image": f"{REGISTRY}/{name}:{image_tag()}",
        "command": ["python", "-m", "pipelines.image_check"],
        "args": [name],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"check-{uuid4().hex[:6]}"}, "spec": spec}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    try:
        cluster.kubectl(
            "wait", f"pod/{pod['metadata']['name']}", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", "--timeout=240s"
        )
        log = cluster.kubectl("logs", pod["metadata"]["name"])
        # TensorFlow greets on the same stream.
        assert any(line.startswith(f"{name}: ok, ") for line in log.splitlines()), log
    finally:
        cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
