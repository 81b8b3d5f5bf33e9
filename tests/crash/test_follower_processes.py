"""Followers and rollouts as processes: killed, ended, started twice; what is left is taken up once, and never from a living one."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.crash.fault_proxy import FaultProxy
from tests.crash.followers import ALIVE_WITHIN, Followed, kubeconfig_of, started, until
from tests.crash.stage import Stage
from tests.release_pieces import make_store
from tests.rollout.web import Reply, WebServer

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(300)]


class Processes(Followed):
    """An installation that is worked on by processes."""

    folder: Path
    kubeconfig: Path

    def dual(self, *arguments: str, kubeconfig: Path | None = None, **plan: Any) -> Any:
        """`dual rollout …` for as long as a block runs."""
        chosen = self.settings(**plan).plan
        assert chosen is not None
        how = {"plan": chosen.model_dump(mode="json")} if arguments[0] == "start" else {}
        return started(self.store, self.stage.api.namespace, kubeconfig or self.kubeconfig, self.folder, *arguments, **how)

    def dies_at_the_gate(self, number: int, **plan: Any) -> None:
        """`dual rollout start`, killed while it waits for somebody."""
        with self.dual("start", self.releases[number], gate=True, **plan) as dying:
            dying.says("waiting for somebody to promote")

    def is_at(self, number: int, phase: str) -> bool:
        return self.stage.state().phase == phase and self.pair() == (number, number)


@pytest.fixture
def site(empty_stage: Stage, tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    store, releases = make_store(tmp_path, 3)
    made = Processes(empty_stage, store, [release.id for release in releases])
    made.folder, made.kubeconfig = tmp_path, kubeconfig
    made.keep_plan()
    return made


def test_two_followers_undo_once(site: Processes) -> None:
    for number in (0, 1, 2):
        site.ship(number)
    with site.dual("follow") as one, site.dual("follow") as other:
        for follower in (one, other):
            follower.says("is over: promoted")
        site.ask("undo")
        until(lambda: site.is_at(1, "rolled_back"))
        for follower in (one, other):
            follower.says("is over: rolled_back")
        # A second undo is a second one, whoever of them does it.
        site.ask("undo")
        until(lambda: site.is_at(0, "rolled_back"))
    assert site.stage.state().epoch == 5


def test_two_followers_and_what_a_dead_process_left(site: Processes) -> None:
    site.ship(0)
    with site.dual("follow") as one, site.dual("follow") as other:
        for follower in (one, other):
            follower.says("is over: promoted")
        site.dies_at_the_gate(1)
        died, epoch = time.monotonic(), site.stage.state().epoch
        until(lambda: site.stage.state().epoch > epoch)
        # Not before it could have been heard of.
        assert time.monotonic() - died > ALIVE_WITHIN / 2
        site.ask("promote")
        until(lambda: site.is_at(1, "promoted"))
        # One of them took it over, and the other one saw that it lives.
        assert site.stage.state().epoch == epoch + 1
        assert sorted("took over from run" in follower.output for follower in (one, other)) == [False, True]


def test_a_follower_that_is_ended_in_the_middle_leaves_it_to_the_next(site: Processes) -> None:
    site.ship(0)
    site.dies_at_the_gate(1)
    heartbeat = site.folder / "alive"
    with site.dual("follow", "--heartbeat", str(heartbeat)) as first:
        first.says("took over from run")
        assert time.time() - heartbeat.stat().st_mtime < 5
        beat = heartbeat.stat().st_mtime
        until(lambda: heartbeat.stat().st_mtime > beat)
        assert first.terminate() == 0
        assert "stopped in the middle of paused: who follows next goes on" in first.output
        assert "Traceback" not in first.output
    with site.dual("follow") as second:
        second.says("took over from run follower@")
        site.ask("promote")
        until(lambda: site.is_at(1, "promoted"))
        second.says("is over: promoted")
        assert second.terminate() == 0
        assert second.output.splitlines()[-1] == "stopped"


@pytest.mark.parametrize("moment", ["prepare", "promote", "drain"])
def test_a_follower_that_is_killed_in_the_middle_of_an_undo(site: Processes, moment: str) -> None:
    site.ship(0)
    site.ship(1)
    with site.dual("follow") as dying:
        dying.says("is over: promoted")
        site.ask("undo")
        dying.says(f"{moment}:")
    with site.dual("follow", "--once") as next_one:
        assert next_one.wait() == 0, next_one.output
    assert site.is_at(0, "rolled_back")


def test_nothing_is_written_while_a_process_lives(site: Processes) -> None:
    site.ship(0)
    with FaultProxy(site.stage.api) as proxy:
        way = kubeconfig_of(proxy.api(site.stage.api.namespace)._client.configuration.host, site.folder)
        with site.dual("follow", "--resync", "1", kubeconfig=way) as follower:
            with site.dual("start", site.releases[1], gate=True) as living:
                living.says("waiting for somebody to promote")
                follower.says("is at it")
                looked, began = len(proxy.calls), time.monotonic()
                until(lambda: len(proxy.calls) > looked + 12)
                # Two questions and a watch at each look; what changes is told, and not asked for again and again.
                assert len(proxy.calls) - looked < 12 + 12 * (time.monotonic() - began)
                site.ask("promote")
                assert living.wait() == 0, living.output
            follower.says("is over: promoted")
        assert [call for call in proxy.calls if call.is_write()] == []
    assert site.is_at(1, "promoted")


def test_once_ends_when_nothing_is_due_or_somebody_sees_to_it(site: Processes) -> None:
    with site.dual("follow", "--once") as nothing:
        assert nothing.wait() == 0
        assert "there never was a rollout" in nothing.output
    site.ship(0)
    with site.dual("start", site.releases[1], gate=True) as living:
        living.says("waiting for somebody to promote")
        with site.dual("follow", "--once") as looking:
            assert looking.wait() == 0
            assert "is at it" in looking.output
    with site.dual("follow", "--once", "--heartbeat", "/proc/nobody/alive") as wrong:
        assert wrong.wait() == 2
        assert "the heartbeat can't be written" in wrong.output


def test_a_webhook_is_told(site: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ship(0)
    site.ship(1)
    site.ask("undo")
    with WebServer(lambda _: Reply("ok")) as web:
        monkeypatch.setenv("DUAL_NOTIFY_URL", web.url)
        with site.dual("follow", "--once") as follower:
            assert follower.wait() == 0, follower.output
        assert web.url not in follower.output
        told = [asked.json()["dual"]["phase"] for asked in web.asked]
    assert (told[0], told[-1]) == ("prepare", "rolled_back")
