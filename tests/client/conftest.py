"""A site that publishes to devices, and a device."""

import shutil
from pathlib import Path

import pytest

from components.core.stores import open_store
from serving.client.device import Device
from tests.client.device_site import Site, make_site


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), 3)


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    """The releases in a store of this test's own."""
    root = tmp_path / "store"
    shutil.copytree(made.store.uri, root)
    return Site(open_store(str(root)), made.releases, made.key)


@pytest.fixture
def device(site: Site, tmp_path: Path) -> Device:
    """A device that has the first release."""
    site.publish(0)
    device = site.device(tmp_path / "device")
    device.update()
    return device
