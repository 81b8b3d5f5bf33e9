"""The first release on a cluster: nothing serves before it, so there is nothing to wait for and nothing to go back to."""

from collections.abc import Callable

import pytest

from components.core.errors import RolloutError
from serving.rollout.cluster.api import Api
from serving.rollout.cluster.begin import begin
from serving.rollout.cluster.objects import live_of
from tests.crash.cluster_site import RELEASES, Controller, plan_of, ship, site_of
from tests.crash.conftest import channel_of
from tests.crash.victims import Order

pytestmark = pytest.mark.cluster


@pytest.fixture
def order(bare: Callable[[], Order], controller: Controller) -> Order:
    del controller
    return bare()


def test_it_waits_for_no_old_pods(order: Order, api_of: Callable[[str], Api]) -> None:
    api, channel = api_of(order.namespace), channel_of(order)
    machine = begin(site_of(api, channel), RELEASES["a"], "", plan_of("canary", scale_down_delay=3600.0), run_id="r1")
    machine.run()
    channel.publish(RELEASES["a"])
    assert machine.run(finish=True).phase == "promoted"
    assert live_of(api.get("Service", "classifier")).stable.startswith(RELEASES["a"])


def test_a_bad_one_leaves_nothing_that_serves(order: Order, api_of: Callable[[str], Api]) -> None:
    api, channel = api_of(order.namespace), channel_of(order)
    with pytest.raises(RolloutError, match="analysis after the switch failed"):
        ship(api, channel, "a", "canary", fails="post")
    live = live_of(api.get("Service", "classifier"))
    assert (live.stable, live.shared) == ("", False)
    assert channel.release() == ""
