"""The zygotes, from which victims are forked."""

from collections.abc import Iterator

import pytest

from tests.kill.victims import Zygote


@pytest.fixture(scope="session")
def zygotes() -> Iterator[list[Zygote]]:
    made = [Zygote() for _ in range(3)]
    yield made
    for each in made:
        each.close()


@pytest.fixture
def zygote(zygotes: list[Zygote]) -> Zygote:
    return zygotes[0]
