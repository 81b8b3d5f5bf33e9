"""What several devices of one process compute, against one device: MirroredStrategy over two halves of this processor."""

import json
import os
import subprocess
import sys

import pytest

from components.core.errors import DataError
from components.core.stores import open_store
from components.training.distributed.order import read_order
from components.training.distributed.processes import free_ports, may_pass
from components.training.distributed.worker import tell_tensorflow
from tests.conftest import ROOT

_STEP = """
import json, sys
import numpy as np, tensorflow as tf, keras
if (copies := int(sys.argv[1])) > 1:
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * copies)
from components.training.replicas import Replicas, SummedAdam, synchronise_batch_norm
keras.utils.set_random_seed(3)
strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(copies)])
with strategy.scope():
    layers = [keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    layers.append(keras.layers.GlobalAveragePooling2D())
    network = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(3, activation="softmax", kernel_regularizer="l2")])
    network.compile(SummedAdam(0.01, global_clipnorm=0.1), "categorical_crossentropy")
    network.optimizer.build(network.trainable_variables)
synchronise_batch_norm(network)
numbers = np.random.default_rng(0)
pixels = numbers.normal(size=(20, 8, 8, 3)).astype(np.float32)
targets, weights = np.eye(3, dtype=np.float32)[numbers.integers(0, 3, 20)], numbers.uniform(0.5, 2, 20).astype(np.float32)
class Held:
    def plain(self, batch):
        return tf.data.Dataset.from_tensor_slices((pixels[:7], targets[:7])).batch(batch)
replicas = Replicas(network, label_smoothing=0.1)
# Whole batches, as the inputs give them; the last held one can't be halved.
data = tf.data.Dataset.from_tensor_slices((pixels[:18], targets[:18], weights[:18])).batch(6)
told = [replicas.epoch(data, 6, Held(), 4) for _ in range(3)]
print(json.dumps([told, [np.asarray(each).tolist() for each in network.get_weights()]]))
"""


def step(copies: int) -> list[object]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", _STEP, str(copies)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


_AGREE = """
import sys
from components.training import devices
strategy = devices.make_strategy()
import keras
from components.training.replicas import Replicas
with strategy.scope():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
replicas = Replicas(network, label_smoothing=0.0)
print([replicas.agree({"done": done, "loss": 1e30}) for done in map(float, sys.argv[1:])], flush=True)
"""


def ask(index: int, peers: list[int], *done: int) -> "subprocess.Popen[str]":
    cluster = {"worker": [f"127.0.0.1:{port}" for port in peers]}
    told = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "TF_CONFIG": told}
    command = [sys.executable, "-c", _AGREE, *map(str, done)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_workers_that_stand_at_different_epochs_know_it() -> None:
    peers = free_ports(2)
    both = [ask(0, peers, 4, 4, 7), ask(1, peers, 4, 5, 7)]
    assert [each.communicate(timeout=120)[0].strip() for each in both] == ["[True, False, True]"] * 2


@pytest.mark.slow
def test_two_devices_train_the_network_of_one() -> None:
    one, two = step(1), step(2)
    assert two[0] == [pytest.approx(epoch, rel=1e-4) for epoch in one[0]]  # type: ignore[union-attr]
    for left, right in zip(flat(two[1]), flat(one[1]), strict=True):
        assert left == pytest.approx(right, abs=2e-4)


def flat(values: object) -> list[float]:
    return [each for value in values for each in flat(value)] if isinstance(values, list) else [float(values)]  # type: ignore[arg-type]


def test_tensorflow_is_told_who_the_peers_are() -> None:
    environment = {"DUAL_WORKERS": "a-0.a:2222,a-1.a:2222", "JOB_COMPLETION_INDEX": "1"}
    tell_tensorflow(environment)
    assert json.loads(environment["TF_CONFIG"]) == {
        "cluster": {"worker": ["a-0.a:2222", "a-1.a:2222"]},
        "task": {"type": "worker", "index": 1},
    }


@pytest.mark.parametrize(("code", "again"), [(75, True), (70, True), (-9, True), (-15, True), (1, False), (2, False), (4, False)])
def test_who_may_be_started_again(code: int, again: bool) -> None:
    assert may_pass(code) is again


def test_an_order_that_is_none_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = open_store(str(tmp_path_factory.mktemp("store")))
    store.put("cache/x.json", b'{"schema": "dual.workers/v1"}')
    with pytest.raises(DataError, match=r"cache/x.json: is no order for workers"):
        read_order(store, "cache/x.json")
