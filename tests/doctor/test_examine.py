"""Checks run side by side, none holds up the others, and a broken one is told as such."""

import threading
import time

import pytest

from components.core.errors import UsageError
from pipelines.doctor.checklist import CHECKS, checks_for
from pipelines.doctor.examine import CLUSTER, Check, Look, examine
from pipelines.doctor.finding import Finding, ok
from pipelines.doctor.kube import NoClusterError, RefusedError
from pipelines.doctor.visit import Visit


def check(name: str, look: Look) -> Check:
    return Check(name, look, frozenset({"local"}), "a test")


def visit(seconds: float = 5) -> Visit:
    return Visit(target="local", seconds=seconds)


def test_checks_run_at_the_same_time_and_are_told_in_their_order() -> None:
    # Each waits for both: one after the other would never end.
    together = threading.Barrier(2, timeout=5)

    def meet(name: str) -> Look:
        return lambda _: [ok(name, str(together.wait() >= 0))]

    found = list(examine(visit(), [check("b", meet("b")), check("a", meet("a"))]))
    assert [finding.check for finding in found] == ["b", "a"]


def test_a_check_that_hangs_is_told_and_holds_up_nobody() -> None:
    forever = threading.Event()

    def hang(_: Visit) -> list[Finding]:
        forever.wait(60)
        return []

    began = time.monotonic()
    found = list(examine(visit(0.3), [check("hangs", hang), check("works", lambda _: [ok("works", "fine")])]))
    assert time.monotonic() - began < 3
    forever.set()
    assert [(finding.check, finding.status) for finding in found] == [("hangs", "failed"), ("works", "ok")]
    assert "no answer within 0.3 s" in found[0].found
    assert "--only hangs" in found[0].fix


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (RefusedError("403: nodes is forbidden", where="/api/v1/nodes", fix="Ask"), "warning", "nodes is forbidden"),
        (UsageError("is wrong", where="there", fix="Mend it"), "failed", "there: is wrong"),
        (ZeroDivisionError("oops"), "failed", "the check itself failed: ZeroDivisionError: oops"),
        (NoClusterError("nothing listens there", where="https://x", fix="Start it"), "skipped", "the cluster can't be looked at"),
    ],
)
def test_an_error_becomes_a_finding(error: Exception, status: str, words: str) -> None:
    def broken(_: Visit) -> list[Finding]:
        raise error

    (found,) = examine(visit(), [check("x", broken)])
    assert (found.status, words in found.found) == (status, True), found


def test_only_the_cluster_check_says_why_the_cluster_is_gone() -> None:
    def gone(_: Visit) -> list[Finding]:
        raise NoClusterError("nothing listens there", where="https://x", fix="Start it")

    told, short = examine(visit(), [check(CLUSTER, gone), check("nodes", gone)])
    assert (told.status, told.fix, short.status) == ("failed", "Start it", "skipped")
    assert "nothing listens there" in told.found


def test_every_target_has_its_checks_and_names_are_unique() -> None:
    assert len({each.name for each in CHECKS}) == len(CHECKS)
    assert {"python", "store", "memory"} <= {each.name for each in checks_for("local")}
    assert {"cluster", "rights", "gpus", "kfp", "argo"} <= {each.name for each in checks_for("kubeflow")}
    assert {"vertex", "google"} <= {each.name for each in checks_for("vertex")}
    assert not {"cluster", "vertex"} & {each.name for each in checks_for("local")}


def test_an_unknown_check_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="there is no check 'gpus' for the target local"):
        checks_for("local", ["gpus"])
