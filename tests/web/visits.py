"""Opening the page in a browser, and giving it images."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from tests.conftest import tiny_jpeg
from tests.web.sites import Seen


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[tuple[Any, Seen]]:
    """The page in a browser of its own, when it has looked for an update."""
    context = browser.new_context(**options)
    context.set_default_timeout(60_000)
    page, seen = context.new_page(), Seen()
    context.on("request", lambda request: seen.requests.append(request.url))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.goto(f"{address}/")
    ready(page)
    yield page, seen
    context.close()
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith((address, "blob:"))] == []


def ready(page: Any) -> None:
    page.wait_for_selector("html[data-ready=yes]", timeout=120_000)


def give(page: Any, image: bytes, name: str = "image.jpg") -> str:
    """Choose a file, and what is said of it when the answer is there."""
    before = page.inner_text("#why")
    page.set_input_files("#choose", {"name": name, "mimeType": "image/jpeg", "buffer": image})
    return answered(page, before)


def answered(page: Any, before: str) -> str:
    script = "before => document.getElementById('answer').ariaBusy !== 'true' && document.getElementById('why').textContent !== before"
    page.wait_for_function(script, arg=before, timeout=60_000)
    return page.inner_text("#why")


def sure() -> bytes:
    """An image of which the phone's model is sure (0.64, the policy asks below 0.6)."""
    return tiny_jpeg(1, 5)


def unsure() -> bytes:
    """One of which it is not."""
    buffer = io.BytesIO()
    Image.new("RGB", (60, 44), (120, 121, 119)).save(buffer, "PNG")
    return buffer.getvalue()
