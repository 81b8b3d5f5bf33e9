"""Two worker pods train one network on a real cluster, in the built image: what one worker gets, also if a pod is deleted in the middle."""

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from components.core.stores import open_store
from components.training.training import read_training
from tests.live.cluster import LiveCluster
from tests.live.pipeline_site import STORE, bucket_at
from tests.training_runs import run_mobile, save_tiny_weights, settings_text

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
EPOCHS = 6
SMALL = {"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}}


def settings(weights: Path, workers: dict[str, Any]) -> str:
    nested = json.loads(settings_text("train_mobile", weights, head={"dropout": 0.0}, workers=workers))
    nested["train_mobile"]["fine_tune"] = {"epochs": EPOCHS, "batch_size": 16, "learning_rate": 0.0003, "patience": 99}
    return json.dumps(nested)


def wait_for(condition: Callable[[], Any], alive: Callable[[], bool], seconds: float = 400) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        assert alive(), "the step is over"
        time.sleep(0.1)
    return found


def told() -> dict[str, Any]:
    """The last epoch of the fine-tuning that the workers told of."""
    store = open_store(STORE)
    names = [name for name in store.list("cache/train_mobile/orders/") if name.endswith(".progress")]
    found = json.loads(store.get(names[0]).data) if names else {}
    return found if found.get("phase") == "fine_tune" else {}


def losses(folder: Path) -> list[float]:
    return [each.val_loss for each in read_training(folder).history if each.phase == "fine_tune"]


def test_a_deleted_worker_costs_one_epoch_and_the_network_is_that_of_one_worker(
    cluster: LiveCluster, tiny_examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = cluster.build_image("dual-trainer")
    namespace = f"training-{uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    weights = save_tiny_weights(tmp_path)
    with bucket_at(cluster) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        pods = {"namespace": namespace, "image": image, "env": {"STORAGE_EMULATOR_HOST": url}, "resources": SMALL}
        text = settings(weights, {"count": 2, "kubernetes": pods})
        step = multiprocessing.get_context("spawn").Process(target=run_mobile, args=(STORE, tiny_examples, text, tmp_path / "two"))
        step.start()
        try:
            before = wait_for(lambda: found if (found := told()).get("epoch", -1) >= 1 else None, step.is_alive)
            cluster.kubectl(
                *("-n", namespace, "delete", "pod", "--grace-period=0", "--force"), "-l", "batch.kubernetes.io/job-completion-index=1"
            )
            step.join(500)
            assert step.exitcode == 0
            left = cluster.kubectl("-n", namespace, "get", "jobs,services", "-o", "name")
            assert left.split() == []
        finally:
            step.kill()
            cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    history = [each for each in read_training(tmp_path / "two").history if each.phase == "fine_tune"]
    # Kept before the pod went, and not trained again: its seconds would be others.
    assert history[before["epoch"]].seconds == before["seconds"]
    run_mobile(tmp_path / "store", tiny_examples, settings(weights, {"count": 1}), tmp_path / "one")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=0.03, abs=0.02)
    assert read_training(tmp_path / "two").replicas == 2
