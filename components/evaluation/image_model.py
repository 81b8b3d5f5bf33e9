"""What evaluation asks of a model, whatever it is made of."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ImageModel(Protocol):
    """A classifier of encoded images."""

    labels: list[str]
    """Class names in the order of its outputs."""

    def predict(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """JPEG or PNG bytes [N] → probabilities float32 [N, C]; `DataError` if the model refuses them."""
        ...
