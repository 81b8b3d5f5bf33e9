"""The rebuilt network is the Keras model, the ranges and the imitated rounding are the converter's."""

from typing import Any

import numpy as np
import pytest

from components.core.errors import UsageError
from components.quantize_mobile.network import HardSwish, Network, Node, Spelling, forward, read_network


def untyped_keras() -> Any:
    """Keras, whose own types contradict its documentation."""
    import keras

    return keras


def random_mobilenet(name: str, minimalistic: bool, size: int = 64, classes: int = 5) -> Any:
    """A MobileNetV3 with random weights and batch-norm statistics that are neither 0 nor 1."""
    keras = untyped_keras()
    keras.utils.set_random_seed(3)
    make = getattr(keras.applications, name)
    base = make(input_shape=(size, size, 3), include_top=False, pooling="avg", weights=None, minimalistic=minimalistic)
    norms = [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]
    generator = np.random.default_rng(3)
    for layer in norms:
        layer.momentum = 0.0
        layer.gamma.assign(generator.uniform(0.6, 1.6, layer.gamma.shape))
        layer.beta.assign(generator.normal(0, 0.3, layer.beta.shape))
    # One pass in training mode sets the statistics, so that signals neither die out nor explode on their way.
    base(pictures(8, size), training=True)
    outputs = keras.layers.Dense(classes, activation="softmax")(keras.layers.Dropout(0.3)(base.output))
    return keras.Model(base.input, outputs)


def pictures(count: int, size: int) -> Any:
    """Images that differ much: flat colours, gradients and noise; float32 [count, size, size, 3]."""
    generator = np.random.default_rng(5)
    flat = generator.uniform(0, 255, (count, 1, 1, 3))
    slope = np.linspace(-1, 1, size)[None, :, None, None] * generator.uniform(-120, 120, (count, 1, 1, 3))
    return np.clip(flat + slope + generator.normal(0, 10, (count, size, size, 3)), 0, 255).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "minimalistic"),
    [("MobileNetV3Small", False), ("MobileNetV3Large", False), ("MobileNetV3Small", True), ("MobileNetV3Large", True)],
)
def test_rebuilt_network_gives_the_features_and_probabilities_of_keras(name: str, minimalistic: bool) -> None:
    keras = untyped_keras()
    model = random_mobilenet(name, minimalistic)
    network, images = read_network(model), pictures(4, 64)
    pooled: dict[str, Any] = {}

    def tap(node: Node, value: Any) -> Any:
        pooled[node.name] = value
        return value

    probabilities = np.asarray(forward(network, images, Spelling(tap)))
    features = keras.Model(model.input, model.get_layer("avg_pool").output).predict(images, verbose=0)
    assert features.std(axis=0).max() > 0.01, "the images must not all look alike to the network"
    np.testing.assert_allclose(np.asarray(pooled["avg_pool"]), features, atol=1e-4 * np.abs(features).max())
    np.testing.assert_allclose(probabilities, model.predict(images, verbose=0), atol=1e-4)
    arithmetic = read_network(model, "arithmetic")
    assert not any(node.kind == "hard_swish" for node in arithmetic.nodes)
    for spelling in (Spelling(), Spelling(for_converter=True)):
        np.testing.assert_allclose(forward(arithmetic, images, spelling), probabilities, atol=1e-4)


def test_base_model_used_as_one_layer_is_read_too() -> None:
    keras = untyped_keras()
    base = keras.applications.MobileNetV3Small(input_shape=(32, 32, 3), include_top=False, pooling="avg", weights=None)
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(base(inputs)))
    images = pictures(2, 32)
    np.testing.assert_allclose(forward(read_network(model), images), model.predict(images, verbose=0), atol=1e-4)


def test_squeeze_excite_factor_is_absorbed_and_its_shift_is_a_bias() -> None:
    network = read_network(random_mobilenet("MobileNetV3Small", False, 32))
    gates = [network.nodes[i] for i, node in enumerate(network.nodes) if node.name.endswith("squeeze_excite_conv_1")]
    assert len(gates) == 9
    assert {gate.activation for gate in gates} == {"relu6"}
    assert {node.kind for node in network.nodes} >= {"hard_swish", "multiply", "mean"}


@pytest.mark.parametrize("layer", ["MaxPooling2D", "LeakyReLU"])
def test_unknown_layer_is_named(layer: str) -> None:
    keras = untyped_keras()
    inputs = keras.Input((32, 32, 3))
    hidden = keras.layers.GlobalAveragePooling2D()(getattr(keras.layers, layer)(name="odd")(keras.layers.Conv2D(4, 3)(inputs)))
    with pytest.raises(UsageError, match=f"odd: a layer of type {layer} in this place can't be rebuilt"):
        read_network(keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden)))


def test_network_without_softmax_is_refused() -> None:
    keras = untyped_keras()
    inputs = keras.Input((32, 32, 3))
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    with pytest.raises(UsageError, match="does not end in a softmax"):
        read_network(keras.Model(inputs, keras.layers.Dense(3)(hidden)))


def small_network(hard_swish: HardSwish = "operation") -> Network:
    """A convolution with hard-swish, a squeeze and a softmax: the smallest network with every rule of the ranges."""
    keras = untyped_keras()
    keras.utils.set_random_seed(1)
    inputs = keras.Input((32, 32, 3))
    hidden = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    hidden = keras.layers.Activation("hard_swish")(keras.layers.Conv2D(8, 3, strides=2, padding="same")(hidden))
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return read_network(keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden)), hard_swish)


def test_ranges_cover_all_values_where_nothing_is_clipped() -> None:
    from components.quantize_mobile.ranges import measure_ranges

    network, images = small_network(), pictures(8, 32).astype(np.uint8)
    ranges = measure_ranges(network, images, "none")
    seen: dict[str, Any] = {}

    def tap(node: Node, value: Any) -> Any:
        seen[node.name] = np.asarray(value)
        return value

    forward(network, images.astype(np.float32), Spelling(tap))
    assert ranges["pixels"] == (0.0, 255.0)
    assert next(ranges[node.name] for node in network.nodes if node.kind == "affine") == pytest.approx((-1.0, 128 / 127))
    dense = next(node.name for node in network.nodes if node.kind == "dense")
    assert ranges[dense][0] <= seen[dense].min()
    assert ranges[dense][1] >= seen[dense].max()
    assert not any(node.kind == "softmax" and node.name in ranges for node in network.nodes)


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_percentiles_leave_their_share_outside(share: float) -> None:
    from components.quantize_mobile.ranges import measure_ranges

    network, images = small_network(), pictures(8, 32).astype(np.uint8)
    ranges = measure_ranges(network, images, "percentile", share)
    seen: dict[str, Any] = {}

    def tap(node: Node, value: Any) -> Any:
        seen[node.name] = np.asarray(value).ravel()
        return value

    forward(network, images.astype(np.float32), Spelling(tap))
    convolution = next(node.name for node in network.nodes if node.kind == "conv" and network.feeds_hard_swish(node.name))
    outside = float((seen[convolution] > ranges[convolution][1]).mean())
    # To the width of one of 2,048 bins.
    assert outside <= 1 - share
    assert outside >= 1 - share - 0.01
    assert ranges[convolution][1] < measure_ranges(network, images, "none")[convolution][1]
    assert ranges["pixels"] == (0.0, 255.0)
    assert all(low <= 0.0 < high for low, high in ranges.values())


def test_rescaled_pixels_are_not_rounded_all_one_way() -> None:
    from components.quantize_mobile.ranges import nudged, without_ties

    values = np.arange(256) / 127.5 - 1

    def mean_error(bounds: tuple[float, float]) -> float:
        codes = np.round(values / nudged(*bounds)[2], 6)
        return float((np.floor(codes + 0.5) - codes).mean())

    assert mean_error((-1.0, 1.0)) == pytest.approx(0.5)
    assert abs(mean_error(without_ties(-1.0, 1.0))) < 0.02
    assert without_ties(0.0, 255.0) == (0.0, 255.0)


@pytest.mark.parametrize("hard_swish", ["operation", "arithmetic"])
def test_what_only_hard_swish_reads_has_no_codes_below_minus_three(hard_swish: HardSwish) -> None:
    from dataclasses import replace

    from components.quantize_mobile.ranges import measure_ranges, nudged

    network = small_network(hard_swish)
    name = next(node.name for node in network.nodes if node.kind == "conv")
    weights = network.weights[name]
    wide = network.with_weights({name: replace(weights, kernel=weights.kernel * 40)})
    low, high, step = nudged(*measure_ranges(wide, pictures(8, 32).astype(np.uint8), "none")[name])
    assert -3.0 - 2 * step <= low <= -3.0
    assert high > 6


def test_least_squares_range_ignores_an_outlier_but_not_a_tail() -> None:
    from components.quantize_mobile.ranges import _least_error

    values = np.random.default_rng(0).normal(0, 1, 200_000)
    with_outlier = 1000 * np.histogram(values, 2048, (-40.0, 40.0))[0]
    with_outlier[-1] += 1
    low, high = _least_error(with_outlier, (-40.0, 40.0), False)
    assert -8 < low < -2.5
    assert 2.5 < high < 8


def test_imitated_weights_have_255_codes_per_channel_and_depthwise_channels_have_their_own() -> None:
    from components.quantize_mobile.fakequant import fake_weights

    kernel = np.random.default_rng(0).normal(0, 1, (5, 5, 16, 1)).astype(np.float32) * (10.0 ** np.arange(-8, 8))[:, None].astype(
        np.float32
    )
    rounded = np.asarray(fake_weights(Node("d", "depthwise"), kernel))
    steps = np.abs(kernel).max(axis=(0, 1, 3)) / 127
    assert np.all(np.abs(rounded - kernel) <= steps[:, None] * 0.5001)
    codes = rounded / steps[:, None]
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)


def test_training_under_imitated_rounding_changes_weights_and_repeats() -> None:
    import tensorflow as tf

    from components.quantize_mobile.finetune import Lessons, fine_tune
    from components.quantize_mobile.ranges import measure_ranges
    from components.quantize_mobile.settings import QatSettings

    network, images = small_network(), pictures(8, 32)
    ranges = measure_ranges(network, images.astype(np.uint8), "mse")
    labels, weights = tf.one_hot(np.arange(8) % 3, 3), tf.ones(8)
    lessons = Lessons(epoch=lambda _: [(tf.constant(images), labels, weights)] * 6, steps=6, label_smoothing=0.1)
    settings, said = QatSettings(epochs=2, learning_rate=0.01), list[str]()
    first, kept = fine_tune(network, network, ranges, lessons, settings, said.append)
    second, _ = fine_tune(network, network, ranges, lessons, settings, said.append)
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in said]
    assert losses[1] < losses[0]
    for name, weights in network.weights.items():
        assert not np.array_equal(first.weights[name].kernel, weights.kernel)
        assert kept == ranges
        np.testing.assert_array_equal(first.weights[name].kernel, second.weights[name].kernel)
