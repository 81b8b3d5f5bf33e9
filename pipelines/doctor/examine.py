"""Runs checks side by side, each within its time: a check that hangs is told as one, and holds up nobody."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from components.core.errors import DualError
from pipelines.doctor.finding import Finding, failed, skipped, warning
from pipelines.doctor.kube import NoClusterError, RefusedError
from pipelines.doctor.visit import Visit

Look = Callable[[Visit], list[Finding]]
CLUSTER = "cluster"
"""The check that says why a cluster can't be reached; the others only say that it can't."""


@dataclass(frozen=True)
class Check:
    """One thing to look at."""

    name: str
    look: Look
    targets: frozenset[str]
    about: str
    """What it looks at, in a few words."""


@dataclass
class _Running:
    check: Check
    thread: threading.Thread
    findings: list[Finding]


def examine(visit: Visit, checks: Sequence[Check]) -> Iterator[Finding]:
    """The findings of all checks, in the order of `checks`, each as soon as it and those before it are known.

    Never takes longer than `visit.seconds`, whatever hangs: checks run in daemon threads, which end with the process.
    """
    deadline = time.monotonic() + visit.seconds
    for running in [_start(visit, check) for check in checks]:
        running.thread.join(max(0.0, deadline - time.monotonic()))
        if running.thread.is_alive():
            fix = f"Look by hand, or give more time: dual doctor --only {running.check.name} --seconds {3 * visit.seconds:g}"
            yield failed(running.check.name, f"no answer within {visit.seconds:g} s", fix)
        else:
            yield from running.findings


def _start(visit: Visit, check: Check) -> _Running:
    findings: list[Finding] = []
    thread = threading.Thread(target=lambda: findings.extend(_looked(visit, check)), daemon=True, name=f"doctor {check.name}")
    thread.start()
    return _Running(check, thread, findings)


def _looked(visit: Visit, check: Check) -> list[Finding]:
    try:
        return check.look(visit)
    except NoClusterError as error:
        return [_failure(check, error)] if check.name == CLUSTER else [skipped(check.name, "the cluster can't be looked at")]
    except RefusedError as error:
        return [warning(check.name, f"can't be looked at: {error.where}: {error.what}", error.fix)]
    except DualError as error:
        return [_failure(check, error)]
    except Exception as error:
        # One broken check must not hide what the others found.
        return [failed(check.name, f"the check itself failed: {type(error).__name__}: {error}", "Report this, with: dual doctor --json")]


def _failure(check: Check, error: DualError) -> Finding:
    return failed(check.name, f"{error.where}: {error.what}" if error.where else error.what, error.fix)
