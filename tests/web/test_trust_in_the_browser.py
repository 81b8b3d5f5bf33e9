"""The page's verifier, policy and pixels against the test vectors and against Python, in a real browser."""

import io
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.core.preprocessing import Preprocessing
from serving.client.pixels import decode, resize
from tests.client.device_site import Site
from tests.conftest import ROOT, tiny_jpeg
from tests.web.sites import running, web_of

pytestmark = pytest.mark.browser
VECTORS: dict[str, Any] = json.loads((ROOT / "docs" / "channel-vectors.json").read_text())


@pytest.fixture(scope="module")
def page(browser: Any, site: Site, vendor: Path) -> Iterator[Any]:
    """A page of the server with none of the app running: modules are loaded one by one."""
    with running(web_of(site, vendor)) as address:
        page = browser.new_page()
        page.goto(f"{address}/page/style.css")
        yield page
        page.close()


def test_every_channel_of_the_vectors_gets_its_verdict(page: Any) -> None:
    keys = {key["key_id"]: key["public_key"] for key in VECTORS["keys"]}
    trust = {**VECTORS["trust"], "keys": [{"key_id": name, "public_key": keys[name]} for name in VECTORS["trust"]["keys"]]}
    script = """async ([channels, trust]) => {
      const { checkChannel } = await import("/page/trust.js");
      const found = [];
      for (const each of channels) {
        try {
          const { manifest, seen } = await checkChannel(new TextEncoder().encode(each.file), trust, each.seen);
          found.push({ verdict: "accept", release: manifest.release, ...seen });
        } catch (error) {
          found.push({ verdict: error.kind ?? `${error}` });
        }
      }
      return found;
    }"""
    found = page.evaluate(script, [VECTORS["channels"], trust])
    wanted = [{key: each[key] for key in ("verdict", "release", "sequence", "digest") if key in each} for each in VECTORS["channels"]]
    assert found == wanted
    assert len(wanted) > 15


def test_a_channel_longer_than_any_is_refused_unread(page: Any) -> None:
    script = """async () => {
      const { checkChannel, LARGEST } = await import("/page/trust.js");
      const trust = { keys: [], channel: "stable" };
      return checkChannel(new Uint8Array(LARGEST + 1), trust, { sequence: 0, digest: "" }).catch((error) => error.kind);
    }"""
    assert page.evaluate(script) == "untrusted"


def test_signed_bytes_buckets_staging_and_policy_are_the_vectors(page: Any) -> None:
    script = """async (vectors) => {
      const { signedBytes, bucket, includes } = await import("/page/trust.js");
      const { decide } = await import("/page/layered.js");
      const { fromBase64 } = await import("/page/bytes.js");
      const { signed_bytes: signed, buckets, staging, policy, trust } = vectors;
      const message = signedBytes(signed.payload_type, fromBase64(signed.payload));
      return {
        message: [...message].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
        buckets: await Promise.all(buckets.map((each) => bucket(each.channel, each.salt, each.installation))),
        staging: await Promise.all(staging.map((each) => includes(each.staging, trust.channel, each.installation, each.has_candidate))),
        policy: policy.map((each) => decide(each.threshold, each.score)),
      };
    }"""
    assert page.evaluate(script, VECTORS) == {
        "message": VECTORS["signed_bytes"]["message_hex"],
        "buckets": [each["bucket"] for each in VECTORS["buckets"]],
        "staging": [each["uses_candidate"] for each in VECTORS["staging"]],
        "policy": [each["answers"] for each in VECTORS["policy"]],
    }


PIXELS = """async ([image, height, width]) => {
  const { decode, resize } = await import("/page/pixels.js");
  const { fromBase64 } = await import("/page/bytes.js");
  try {
    const found = await decode(fromBase64(image));
    return { size: [found.height, found.width], data: [...found.data], small: [...resize(found, height, width)] };
  } catch (error) {
    return error.message;
  }
}"""


def pixels(page: Any, image: bytes, side: int = 48) -> Any:
    return page.evaluate(PIXELS, [b64encode(image).decode(), side, side])


def encoded(array: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int) -> Any:
    small = np.random.default_rng(height).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("height", "width"), [(301, 200), (96, 133), (48, 48), (20, 31)])
def test_a_png_becomes_the_same_pixels_as_in_python(page: Any, height: int, width: int) -> None:
    image = encoded(noise(height, width), "PNG")
    found, contract = pixels(page, image), Preprocessing(height=48, width=48)
    assert found["size"] == [height, width]
    assert np.array_equal(np.reshape(found["data"], (height, width, 3)), decode(image))
    off = np.abs(np.reshape(found["small"], (48, 48, 3)).astype(int) - resize(decode(image), contract))
    # Both sums are rounded; where one lies at a half the other may fall to the other side.
    assert off.max() <= 1
    assert (off > 0).mean() < 0.005


@pytest.mark.parametrize("options", [{}, {"quality": 95, "subsampling": 0}, {"quality": 60, "progressive": True}])
def test_a_jpeg_differs_by_a_few_levels_at_most(page: Any, options: dict[str, Any]) -> None:
    image = encoded(noise(200, 301), "JPEG", **options)
    found = pixels(page, image)
    off = np.abs(np.reshape(found["data"], (200, 301, 3)).astype(int) - decode(image))
    assert off.max() <= 3
    assert off.mean() < 0.2


def test_orientation_tags_and_profiles_are_unheeded_as_in_the_cloud(page: Any) -> None:
    plain = noise(80, 120)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(plain, "JPEG", exif=exif, icc_profile=b"not a profile at all")
    found = pixels(page, turned)
    assert found["size"] == [80, 120]
    assert np.array_equal(found["data"], pixels(page, encoded(plain, "JPEG"))["data"])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"GIF89a" + bytes(20), "not a JPEG or PNG"),
        (b"", "not a JPEG or PNG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8) + (60_000).to_bytes(4, "big") * 2, "more than 89 megapixels"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (tiny_jpeg(1, 2)[:300], "can't be decoded|damaged"),
    ],
)
def test_what_is_no_image_is_said_before_it_is_decoded(page: Any, image: bytes, said: str) -> None:
    import re

    assert re.search(said, pixels(page, image))
