"""The one decorator that makes a function a lightweight, containerised KFP component."""

from collections.abc import Callable
from typing import Any

from kfp import dsl


def step(image: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a component that runs in the logical image `image` (the skaffold artifact's name; digests are pinned at compile time).

    Nothing is pip-installed at run time: the image holds the executor and this package.
    """

    def make(function: Callable[..., Any]) -> Callable[..., Any]:
        return dsl.component(function, base_image=image, install_kfp_package=False)

    return make
