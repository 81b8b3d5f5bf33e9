"""Rollouts on an endpoint: good and bad releases of each kind, undo, what is sent, and what others do meanwhile."""

import json
from itertools import pairwise

import pytest

from components.core.errors import RolloutError
from tests.vertex.endpoint_site import EndpointSite, wrong


def test_the_first_release_takes_all_traffic_after_its_checks(site: EndpointSite) -> None:
    first = site.release()
    state = site.ship(first)
    assert (state.phase, state.achieved) == ("promoted", 100.0)
    assert site.is_settled(first)


def test_a_good_release_grows_by_steps_and_the_old_one_goes(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    shares: list[dict[str, int]] = []
    site.fake.watch.append(lambda _: shares.append(site.fake.shares()))
    state = site.ship(second)
    assert state.phase == "promoted"
    assert site.is_settled(second)
    moves = [each for before, each in pairwise(shares) if each != before]
    assert moves == [{first: 80, second: 20}, {first: 50, second: 50}, {second: 100}]
    assert {sum(each.values()) for each in shares} == {100}


def test_a_bad_release_goes_back(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.fake.behaviours[second] = wrong()
    with pytest.raises(RolloutError, match="golden_agreement failed"):
        site.ship(second)
    assert site.state().phase == "aborted"
    assert site.is_settled(first)


_ = json
