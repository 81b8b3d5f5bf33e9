"""Networks by name: flat, named as keras.applications names them, and only as trainable as a phase wants."""

from typing import Any

import pytest

from tests.training_runs import BACKBONE


@pytest.fixture
def network() -> Any:
    import keras

    from components.training.backbones import build_network

    # Layers without a name of their own are numbered through the process.
    keras.utils.clear_session()
    return build_network(BACKBONE, 32, 3, weights=None, dropout=0.2)


def test_a_network_is_flat_and_keeps_the_backbone_s_names(network: Any) -> None:
    import keras

    make: Any = keras.applications.MobileNetV3Small
    keras.utils.clear_session()
    base = make(minimalistic=True, include_top=False, weights=None, input_shape=(32, 32, 3))
    names = [layer.name for layer in network.layers]
    assert names[1:-3] == [layer.name for layer in base.layers][1:]
    assert names[-3:] == ["features", "head_dropout", "probabilities"]
    assert network.output_shape == (None, 3)


def test_features_are_what_the_head_sees(network: Any) -> None:
    import numpy as np

    from components.training.backbones import PROBABILITIES, feature_network
    from components.training.head import Head

    pixels = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    features = np.asarray(feature_network(network)(pixels, training=False))
    head = Head(*network.get_layer(PROBABILITIES).get_weights())
    np.testing.assert_allclose(head.probabilities(features), network(pixels, training=False), atol=1e-5)


def test_constant_weights_give_the_same_features(network: Any) -> None:
    import numpy as np

    from components.training.backbones import frozen_inference, inference

    pixels = np.random.default_rng(1).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    frozen, wanted = frozen_inference(network), np.asarray(inference(network)(pixels))
    np.testing.assert_allclose(frozen(pixels), wanted, atol=1e-5)
    network.get_layer("probabilities").set_weights([np.zeros((576, 3)), np.array([5, 0, 0])])
    np.testing.assert_allclose(frozen(pixels), wanted, atol=1e-5)


def test_fine_tuning_leaves_batch_normalisation_and_lower_layers_alone(network: Any) -> None:
    from components.training.backbones import unfreeze

    unfreeze(network, 12)
    backbone = [layer for layer in network.layers if layer.name not in ("features", "head_dropout", "probabilities")]
    learning = [layer for layer in backbone if layer.trainable]
    assert learning
    assert set(learning) <= set(backbone[-12:])
    assert not [layer for layer in learning if type(layer).__name__ == "BatchNormalization"]
    assert network.get_layer("probabilities").trainable
    unfreeze(network, "all")
    assert [layer.name for layer in backbone if not layer.trainable] == [
        layer.name for layer in backbone if type(layer).__name__ == "BatchNormalization"
    ]


def test_batch_normalisation_follows_within_short_trainings(network: Any) -> None:
    from components.training.backbones import lower_batch_norm_momentum

    def momenta() -> set[float]:
        return {layer.momentum for layer in network.layers if type(layer).__name__ == "BatchNormalization"}

    assert momenta() == {0.999}
    lower_batch_norm_momentum(network, 0.9)
    assert momenta() == {0.9}


def test_learning_rates_rise_then_fall_to_zero() -> None:
    from components.training.fit import cosine_with_warmup

    rates = [float(cosine_with_warmup(0.01, 100, 0.1)(step)) for step in range(101)]
    assert rates.index(max(rates)) == 10
    assert max(rates) == pytest.approx(0.01)
    assert rates[0] == pytest.approx(0.001)
    assert rates[100] == pytest.approx(0, abs=1e-6)
    assert float(cosine_with_warmup(0.01, 100, 0)(0)) == pytest.approx(0.01)


@pytest.mark.parametrize("backbone", ["MobileNet", "ResNet50", "EfficientNetB0"])
def test_rescaling_is_inside_any_network(backbone: str) -> None:
    import keras
    import numpy as np

    from components.training.backbones import build_network, feature_network

    # EfficientNetB0 names a layer "rescaling" itself, in a session without others.
    keras.utils.clear_session()
    network = build_network(backbone, 32, 3, weights=None, dropout=0)
    plain: Any = getattr(keras.applications, backbone)
    base = plain(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    base.set_weights(network.get_weights()[:-2])
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    applications = keras.applications
    modules = {"MobileNet": applications.mobilenet, "ResNet50": applications.resnet50, "EfficientNetB0": applications.efficientnet}
    wanted = base(modules[backbone].preprocess_input(pixels.copy()), training=False)
    np.testing.assert_allclose(feature_network(network)(pixels, training=False), wanted, rtol=1e-3, atol=1e-4)
