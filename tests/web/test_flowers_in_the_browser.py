"""The real network on real photographs, in a real browser: MobileNetV3-Small at full int8 answers as it does in Python."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.preprocessing import Preprocessing
from serving.client.pixels import decode_and_resize
from tests.client.device_site import Site
from tests.conftest import SHARED
from tests.web.sites import running, web_of

pytestmark = [pytest.mark.browser, pytest.mark.flowers, pytest.mark.timeout(600)]
CONTRACT = Preprocessing(height=224, width=224)
COUNT = 15


@pytest.fixture(scope="module")
def photographs() -> list[Path]:
    every = sorted((SHARED / "data" / "flowers" / "validation").glob("*/*.jpg"))
    return every[:: len(every) // COUNT][:COUNT]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrained features, calibrated on photographs, with an untrained head: the kernels are what counts here."""
    import keras

    from components.quantize_mobile.convert import to_int8_by_calibration
    from components.quantize_mobile.network import read_network

    (weights,) = (SHARED / "data" / "weights").glob("weights_mobilenet_v3_small_*.h5")
    keras.utils.set_random_seed(1)
    features = keras.applications.MobileNetV3Small(input_shape=(224, 224, 3), include_top=False, weights=str(weights), pooling="avg")
    network = keras.Model(features.input, keras.layers.Dense(5, activation="softmax")(features.output))
    calibration = sorted((SHARED / "data" / "flowers" / "train").glob("*/*.jpg"))[::20]
    pixels = [decode_and_resize(path.read_bytes(), CONTRACT) for path in calibration]
    (path := tmp_path_factory.mktemp("network") / "model.tflite").write_bytes(to_int8_by_calibration(read_network(network), pixels))
    return path


RUN = """async ([model, images]) => {
  const { loadRuntime } = await import("/page/model.js");
  const { decode, resize } = await import("/page/pixels.js");
  const { fromBase64 } = await import("/page/bytes.js");
  const litert = await loadRuntime();
  const compiled = await litert.loadAndCompile(fromBase64(model), { accelerator: "wasm" });
  const found = [];
  for (const image of images) {
    const pixels = resize(await decode(fromBase64(image)), 224, 224);
    const input = new litert.Tensor(pixels, [1, 224, 224, 3]);
    const began = performance.now();
    const [output] = await compiled.run(input);
    const raw = [...(await output.data())];
    found.push({ raw, milliseconds: performance.now() - began, pixels: [...pixels] });
  }
  return found;
}"""


def test_real_photographs_are_answered_as_in_python(
    browser: Any, site: Site, vendor: Path, network: Path, photographs: list[Path], record_property: Any
) -> None:
    from components.quantize_mobile.interpreter import Classifier

    classifier = Classifier(network)
    files = [path.read_bytes() for path in photographs]
    with running(web_of(site, vendor)) as address:
        page = browser.new_page()
        page.goto(f"{address}/page/style.css")
        page.evaluate("() => document.body ?? document.documentElement.append(document.createElement('body'))")
        found = page.evaluate(RUN, [b64encode(network.read_bytes()).decode(), [b64encode(file).decode() for file in files]])
        page.close()
    pixels = [np.reshape(each["pixels"], (224, 224, 3)).astype(np.uint8) for each in found]
    same_pixels = [classifier.predict_raw(each) for each in pixels]
    # The network itself: not one step of 1/256 differs.
    assert [each["raw"] for each in found] == [raw.tolist() for raw in same_pixels]
    # With each side's own JPEG decoder.
    own = [decode_and_resize(file, CONTRACT) for file in files]
    levels = [np.abs(a.astype(int) - b) for a, b in zip(pixels, own, strict=True)]
    steps = [np.abs(classifier.predict_raw(a).astype(int) - b["raw"]).max() for a, b in zip(own, found, strict=True)]
    agree = np.mean([np.argmax(classifier.predict_raw(a)) == np.argmax(b["raw"]) for a, b in zip(own, found, strict=True)])
    figures = {
        "largest difference of a pixel": int(max(each.max() for each in levels)),
        "mean difference of pixels": float(np.mean([each.mean() for each in levels])),
        "largest difference of an output in 1/256": int(max(steps)),
        "same label": float(agree),
        "milliseconds": float(np.median([each["milliseconds"] for each in found])),
    }
    record_property("figures", json.dumps(figures))
    print(figures)  # noqa: T201
    assert figures["largest difference of a pixel"] <= 3
    assert figures["mean difference of pixels"] < 0.1
    assert figures["same label"] == 1.0
