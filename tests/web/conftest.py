"""Chromium, LiteRT.js and a site with three releases, once for all tests of the page."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.device_site import Site, make_site


@pytest.fixture(scope="session")
def vendor() -> Path:
    """LiteRT.js from npm, kept in the user's cache: as `dual web` does it."""
    from serving.web.vendor import vendored

    return vendored()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), 3)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium. Not for the session: while it is open this thread has a running event loop, which other tests can't bear."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("needs Chromium on the PATH (Debian: apt-get install chromium)")
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture
def published(site: Site) -> Site:
    """The site, its first release being the one that counts."""
    site.publish(0)
    return site


@pytest.fixture
def own_site(tmp_path: Path) -> Site:
    """A site of this test alone, for tests that spoil it."""
    site = make_site(tmp_path, 2)
    site.publish(0)
    return site
