"""Equalisation, bias correction, training's loss and ranges, the debugger: each on a network small enough to know the answer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from components.quantize_mobile.network import Network, Spelling, forward, read_network, shaped_gain
from components.quantize_mobile.ranges import channel_maxima, measure_ranges
from tests.unit.test_quantize_network import pictures, random_mobilenet, small_network, untyped_keras

IMAGES, PLAIN = pictures(12, 32).astype(np.uint8), Spelling()


def relu_network(spread: float = 1.0) -> Network:
    """Convolution, depthwise, convolution, with a shortcut around the last two; `spread`: ratio of the channels' ranges."""
    keras = untyped_keras()
    keras.utils.set_random_seed(2)
    inputs = keras.Input((32, 32, 3))
    hidden = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    hidden = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="first")(hidden)
    wide = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="middle")(hidden)
    hidden = keras.layers.Add(name="sum")([hidden, keras.layers.Conv2D(8, 1, name="last")(wide)])
    outputs = keras.layers.Dense(3, activation="softmax", name="dense")(keras.layers.GlobalAveragePooling2D()(hidden))
    network = read_network(keras.Model(inputs, outputs))
    weights = network.weights["middle"]
    return network.with_weights({"middle": replace(weights, gain=np.geomspace(1, spread, 8).astype(np.float32))})


def tensors(network: Network, spelling: Spelling = PLAIN) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def tap(node: Any, value: Any) -> Any:
        seen[node.name] = spelling.tap(node, value)
        return seen[node.name]

    forward(network, IMAGES.astype(np.float32), Spelling(tap, spelling.weigh))
    return {name: np.asarray(value) for name, value in seen.items()}


def rounded(ranges: Any) -> Spelling:
    from components.quantize_mobile.fakequant import fake_activations, fake_weights

    return Spelling(fake_activations(ranges), fake_weights)


@pytest.mark.parametrize("minimalistic", [False, True])
def test_equalisation_changes_weights_and_not_the_function(minimalistic: bool) -> None:
    from components.quantize_mobile.equalise import equalise, groups

    network = read_network(random_mobilenet("MobileNetV3Small", minimalistic, 32), "arithmetic")
    even = equalise(network, channel_maxima(network, IMAGES))
    assert len(groups(network)) >= 19
    changed = [name for name, weights in network.weights.items() if not np.allclose(weights.gain, even.weights[name].gain)]
    assert len(changed) > 20
    before, after = (np.asarray(forward(each, IMAGES.astype(np.float32))) for each in (network, even))
    np.testing.assert_allclose(after, before, atol=3e-5)


def test_tensors_joined_by_an_addition_are_scaled_alike_and_hard_swish_is_left_alone() -> None:
    from components.quantize_mobile.equalise import groups

    found = {tuple(group.writers): group.readers for group in groups(relu_network())}
    assert found == {("first", "last"): ["middle", "dense"], ("middle",): ["last"]}
    swish = small_network("arithmetic")
    assert groups(swish) == []


def test_equalisation_levels_the_channels_of_an_uneven_tensor() -> None:
    from components.quantize_mobile.equalise import equalise

    network = relu_network(spread=1000.0)
    before = channel_maxima(network, IMAGES)["middle"]
    even = equalise(network, channel_maxima(network, IMAGES))
    after = channel_maxima(even, IMAGES)["middle"]
    assert after.max() / np.median(after) < 0.5 * before.max() / np.median(before)


def test_bias_correction_removes_the_mean_error_of_every_layer() -> None:
    from components.quantize_mobile.bias import correct_biases

    network = relu_network(spread=30.0)
    rough = {
        name: (low / 4, high / 4) if name in ("first", "middle") else (low, high) for name, (low, high) in plain_ranges(network).items()
    }
    exact = tensors(network)
    corrected = correct_biases(network, rough, IMAGES)
    before, after = (tensors(each, rounded(rough)) for each in (network, corrected))
    step = (rough["last"][1] - rough["last"][0]) / 255

    def mean_error(found: dict[str, Any]) -> float:
        return float(np.abs((found["last"] - exact["last"]).mean(axis=(0, 1, 2))).max())

    assert mean_error(before) > 5 * step
    assert mean_error(after) < step
    assert all(np.array_equal(corrected.weights[name].kernel, weights.kernel) for name, weights in network.weights.items())


def plain_ranges(network: Network) -> dict[str, tuple[float, float]]:
    return measure_ranges(network, IMAGES, "none")


@pytest.mark.parametrize("damaged", ["first", "middle", "last"])
def test_debugger_finds_the_layer_that_was_damaged(damaged: str) -> None:
    from components.quantize_mobile.layers import measure_layers, worst_layers

    network = relu_network()
    ranges = plain_ranges(network)
    healthy = {layer.tensor: layer for layer in measure_layers(network, network, ranges, IMAGES)}
    assert all(layer.own_error_in_steps < 0.6 for layer in healthy.values())
    low, high = ranges[damaged]
    layers = measure_layers(network, network, {**ranges, damaged: (low / 10, high / 10)}, IMAGES)
    assert worst_layers(layers, 1)[0].tensor == damaged
    hurt = {layer.tensor: layer for layer in layers}
    assert hurt[damaged].own_error_in_steps > 10
    others = [name for name in hurt if name != damaged]
    assert [hurt[name].own_signal_to_noise_db for name in others] == pytest.approx(
        [healthy[name].own_signal_to_noise_db for name in others], abs=1e-3
    ), "a layer is not blamed for what came before it"
    assert hurt["dense"].signal_to_noise_db < healthy["dense"].signal_to_noise_db - 3


def test_debugger_shows_where_noise_begins_when_a_weight_was_damaged() -> None:
    from components.quantize_mobile.layers import measure_layers

    network = relu_network()
    weights = network.weights["middle"]
    broken = network.with_weights({"middle": replace(weights, bias=weights.bias + 1.0)})
    healthy, hurt = (
        {layer.tensor: layer.signal_to_noise_db for layer in measure_layers(network, each, plain_ranges(network), IMAGES)}
        for each in (network, broken)
    )
    assert hurt["first"] == pytest.approx(healthy["first"], abs=1e-3)
    assert hurt["middle"] < healthy["middle"] - 10


def test_loss_is_cross_entropy_and_softened_divergence() -> None:
    from components.quantize_mobile.finetune import Loss

    labels, weights = np.eye(3, dtype=np.float32)[[0, 2]], np.array([1.0, 3.0], np.float32)
    teacher = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32)
    student = np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], np.float32)

    def softened(p: Any) -> Any:
        return p ** (1 / 2.0) / (p ** (1 / 2.0)).sum(axis=1, keepdims=True)

    divergence = (softened(teacher) * np.log(softened(teacher) / softened(student))).sum(axis=1)
    targets = labels * 0.9 + 0.1 / 3
    entropy = -(targets * np.log(student)).sum(axis=1)
    expected = (weights * (0.25 * entropy + 0.75 * 4 * divergence)).mean()
    assert float(Loss(0.75, 2.0, 0.1)(labels, weights, teacher, student)) == pytest.approx(expected, rel=1e-5)
    assert float(Loss(1.0, 3.0, 0.1)(labels, weights, teacher, teacher)) == pytest.approx(0.0, abs=1e-6)


def lessons() -> Any:
    import tensorflow as tf

    from components.quantize_mobile.finetune import Lessons

    batch = (tf.constant(IMAGES.astype(np.float32)), tf.one_hot(np.arange(12) % 3, 3), tf.ones(12))
    return Lessons(epoch=lambda _: [batch] * 6, steps=6, label_smoothing=0.0)


def test_ranges_that_are_trained_move_but_not_the_pixels_nor_the_end_below_hard_swish() -> None:
    from components.quantize_mobile.fakequant import below_dead
    from components.quantize_mobile.finetune import fine_tune
    from components.quantize_mobile.settings import QatSettings

    network = small_network("arithmetic")
    conv = next(node.name for node in network.nodes if node.kind == "conv")
    ranges = {**plain_ranges(network), conv: (below_dead(0.5), 0.5)}
    settings = QatSettings(epochs=2, learning_rate=0.01, learn_ranges=True, averaging=0.5)
    _, learned = fine_tune(network, network, ranges, lessons(), settings, lambda _: None)
    assert learned.keys() == ranges.keys()
    assert learned["pixels"] == (0.0, 255.0)
    assert learned[conv][1] != 0.5
    assert learned[conv][0] == pytest.approx(below_dead(learned[conv][1]), rel=1e-5)


def test_control_is_trained_alike_without_rounding() -> None:
    from components.quantize_mobile.finetune import fine_tune
    from components.quantize_mobile.settings import QatSettings

    network, said = relu_network(), list[str]()
    control, ranges = fine_tune(network, network, None, lessons(), QatSettings(epochs=2, learning_rate=0.01), said.append)
    assert ranges == {}
    assert said[0].startswith("control epoch 1")
    kernel = network.weights["first"].kernel * shaped_gain(network.nodes[2], network.weights["first"].gain)
    assert not np.array_equal(control.weights["first"].kernel, kernel)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_pruned_share_is_exact_and_the_smallest_go(share: float) -> None:
    from components.quantize_mobile.compress import magnitude_mask

    kernel = np.random.default_rng(1).normal(0, 1, (1, 1, 20, 50)).astype(np.float32)
    mask = magnitude_mask(kernel, share)
    assert int((mask == 0).sum()) == int(1000 * share)
    assert share == 0 or np.abs(kernel[mask == 0]).max() <= np.abs(kernel[mask == 1]).min()


def test_sparsity_rises_to_its_end_and_stays() -> None:
    from components.quantize_mobile.compress import sparsity_at

    shares = [sparsity_at(done, 0.6) for done in np.linspace(0, 1, 11)]
    assert shares[0] == 0
    assert shares[-3:] == pytest.approx([0.6] * 3)
    assert shares == sorted(shares)
    assert shares[3] - shares[2] > shares[6] - shares[5]


def test_shared_values_are_where_the_weights_are() -> None:
    from components.quantize_mobile.compress import shared_values

    generator = np.random.default_rng(1)
    lumps = np.concatenate([generator.normal(centre, 0.01, 500) for centre in (-0.45, 0.2, 0.7)]).astype(np.float32)
    values = shared_values(lumps, 9)
    assert len(values) == 9
    assert list(values) == sorted(values)
    assert {-1.0, 0.0, 1.0} <= set(values.tolist())
    assert all(np.abs(values - centre).min() < 0.02 for centre in (-0.45, 0.2, 0.7))


@pytest.mark.parametrize(("changed", "zeros", "codes"), [({"sparsity": 0.5}, 0.5, 255), ({"clusters": 9}, 0.0, 9)])
def test_trained_weights_are_as_sparse_and_as_few_as_asked(changed: dict[str, Any], zeros: float, codes: int) -> None:
    from components.quantize_mobile.finetune import fine_tune
    from components.quantize_mobile.settings import QatSettings

    network = relu_network()
    settings = QatSettings(epochs=2, learning_rate=0.003, **changed)
    trained, _ = fine_tune(network, network, plain_ranges(network), lessons(), settings, lambda _: None)
    for name in ("first", "last", "dense"):
        kernel = trained.weights[name].kernel * shaped_gain(network.nodes[2], trained.weights[name].gain)
        assert (kernel == 0).mean() >= int(kernel.size * zeros) / kernel.size
        found = np.round(127 * kernel / np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1))))
        assert len(np.unique(found)) <= codes
        assert not np.array_equal(kernel, network.weights[name].kernel * network.weights[name].gain), "it was trained"


def test_a_network_with_a_silent_layer_calibrates_to_a_model_that_loads(tmp_path: Any) -> None:
    from components.quantize_mobile.convert import to_float, to_int8_by_calibration
    from components.quantize_mobile.flatbuffer import finish
    from components.quantize_mobile.interpreter import Classifier
    from components.quantize_mobile.ranges import wake_silent

    network = relu_network()
    weights = network.weights["middle"]
    network = network.with_weights({"middle": replace(weights, bias=np.full(8, -1e3, np.float32))})
    assert tensors(network)["middle"].max() == 0
    awake = wake_silent(network, IMAGES)
    assert tensors(awake)["middle"].max() == pytest.approx(0.01)
    assert np.array_equal(awake.weights["first"].kernel, network.weights["first"].kernel)
    (tmp_path / "int8.tflite").write_bytes(finish(to_int8_by_calibration(awake, IMAGES), ["a", "b", "c"], "n", "t"))
    (tmp_path / "float.tflite").write_bytes(finish(to_float(network), ["a", "b", "c"], "n", "t", contract=False))
    wanted, found = (Classifier(tmp_path / f"{name}.tflite").predict(IMAGES) for name in ("float", "int8"))
    np.testing.assert_allclose(found, wanted, atol=0.05)


def test_debugger_does_not_mind_what_hard_swish_does_not() -> None:
    from components.quantize_mobile.layers import measure_layers

    network = small_network("arithmetic")
    name = next(node.name for node in network.nodes if node.kind == "conv")
    weights = network.weights[name]
    deep = network.with_weights({name: replace(weights, bias=weights.bias - np.linspace(0, 40, 8).astype(np.float32))})
    layers = {layer.tensor: layer for layer in measure_layers(deep, deep, plain_ranges(deep), IMAGES)}
    assert plain_ranges(deep)[name][0] > -4
    assert layers[name].own_error_in_steps < 0.6
