"""An image's bytes as the mobile model takes them, by Pillow and numpy alone: what an app does in its own language.

The contract's resize is `tf.image.resize(…, antialias=True)`: a triangle filter over the samples' centres, stretched by the scale where the
image becomes smaller, normalised at the borders. Equal to it up to one level on less than 2 % of the values, where the sum lies at a half.
JPEG decoders differ: TensorFlow's `decode_image` takes libjpeg's faster inverse DCT, Pillow and phones the exact one, which makes a few
levels at most (tests/client/test_pixels.py measures both).
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from components.core.errors import DataError
from components.core.preprocessing import Preprocessing


def decode_and_resize(image: bytes, contract: Preprocessing) -> NDArray[np.uint8]:
    """JPEG or PNG bytes → uint8 RGB [height, width, 3] by `contract`; `DataError` if they are no such image."""
    return resize(decode(image), contract)


def decode(image: bytes) -> NDArray[np.uint8]:
    """JPEG or PNG bytes → uint8 RGB [h, w, 3] as stored, orientation tags unheeded (as in the cloud's graph)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(image), formats=("JPEG", "PNG")) as opened:
            return np.asarray(opened.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"is not a readable JPEG or PNG image ({error})", where="image", fix="Convert it, or leave it out") from None


def resize(pixels: NDArray[np.uint8], contract: Preprocessing) -> NDArray[np.uint8]:
    """uint8 RGB [h, w, 3] → uint8 [height, width, 3]: antialiased bilinear, rounded half to even."""
    rows = _weights(pixels.shape[0], contract.height)
    columns = _weights(pixels.shape[1], contract.width)
    narrow = np.einsum("yh,hwc->ywc", rows, pixels.astype(np.float32), optimize=True)
    scaled = np.einsum("xw,ywc->yxc", columns, narrow, optimize=True)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _weights(source: int, target: int) -> NDArray[np.float32]:
    """[target, source]: how much each input sample counts for each output sample."""
    scale = source / target
    stretch = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source)[np.newaxis, :] + 0.5 - centres[:, np.newaxis]) / stretch
    kernel = np.maximum(0.0, 1.0 - distance)
    return (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
