"""Many rollouts of many pods, without a single container: do time, API calls, memory and state stay what they are at the first?

    python -m benchmarks.rollout_scale [--short] [--replicas 200] [--rollouts 50] [--strategy canary] [--kubeconfig FILE] [--json FILE]

An API server and etcd (from the rig in ../shared or $DUAL_SHARED, unless --kubeconfig names another one) and a second process that does
what KWOK does: it makes the pods that Deployments want, says that they are ready, and takes them away again. The rollout is the real one,
Events included; only the judge is content with everything. One release after the other is rolled out, each beside the one before.

Met if the last rollouts need no more API calls and writes than the first ones, the memory of the process has not grown, and no objects pile
up (the limits are below). Times are shown and not judged: they are the API server's, and the machine's.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.rollout.cluster.api import Api, connect
from serving.rollout.cluster.names import NAME, Names
from serving.rollout.cluster.settings import Plan

WRITES = ("POST", "PATCH", "PUT", "DELETE")
MOST_CALLS, MOST_WRITES, MOST_MEMORY = 1.20, 1.05, 1.10
"""How much more the last fifth of the rollouts may need than the first; calls depend on how long pods are waited for, too."""
WARM = Plan().revisions_kept + 1
"""Before so many rollouts there are no old Deployments to delete."""
_POLL = 0.25


@dataclass
class Course:
    """One rollout."""

    seconds: float
    calls: int
    writes: int
    memory_mib: float
    state_bytes: int
    list_ms: list[float] = field(default_factory=list)
    """How long each list of pods took."""


def main() -> int:
    """Measure and print; 1 if something grew."""
    options = _options()
    with _api_server(options.kubeconfig) as kubeconfig:
        if options.simulate:
            simulate(kubeconfig, options.simulate)
            return 0
        result = measure(kubeconfig, options.replicas, options.rollouts, options.strategy)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0 if result["met"] else 1


def measure(kubeconfig: Path, replicas: int, rollouts: int, strategy: str = "canary", namespace: str = "") -> dict[str, Any]:
    """The figures of so many rollouts after a first deployment, each of so many pods, in a new namespace."""
    from tests.crash.cluster_site import make_namespace, template

    api = _TimedApi(connect("default", kubeconfig=kubeconfig)._client, namespace or f"scale-{os.getpid()}")
    make_namespace(api, template(replicas=replicas))
    with _cluster(kubeconfig, api.namespace):
        channel = _Channel()
        _roll_out(api, channel, 0, strategy)
        courses = [_roll_out(api, channel, number, strategy) for number in range(1, rollouts + 1)]
    deployments = sum(1 for _ in api.list("Deployment", f"{NAME}=classifier"))
    _delete_namespace(api)
    return summary(courses, replicas=replicas, strategy=strategy, deployments=deployments)


def summary(courses: Sequence[Course], *, replicas: int, strategy: str, deployments: int) -> dict[str, Any]:
    """First, median, last and growth of each figure, and whether everything stayed what it was."""
    figures = {name: _figures([float(getattr(each, name)) for each in courses]) for name in ("seconds", "calls", "writes", "memory_mib")}
    figures["state_bytes"] = _figures([float(each.state_bytes) for each in courses])
    figures["list_pods_ms"] = _figures([statistics.median(each.list_ms) if each.list_ms else 0.0 for each in courses])
    limits = {"calls": MOST_CALLS, "writes": MOST_WRITES, "memory_mib": MOST_MEMORY}
    # The template, those that are kept without pods, and the one that serves.
    met = deployments <= Plan().revisions_kept + 2 and all(figures[name]["growth"] <= most for name, most in limits.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "replicas": replicas,
        "rollouts": len(courses),
        "strategy": strategy,
        **figures,
        "seconds_in_all": round(sum(each.seconds for each in courses), 1),
        "peak_memory_mib": round(peak, 1),
        "deployments_left": deployments,
        "cores": os.cpu_count(),
        "met": met,
    }


def _figures(values: Sequence[float]) -> dict[str, float]:
    warm = values[min(WARM, len(values) // 2) :]
    share = max(1, len(warm) // 5)
    begin, end = statistics.fmean(warm[:share]), statistics.fmean(warm[-share:])
    shown = {"first": values[0], "median": statistics.median(values), "last": values[-1], "growth": end / begin if begin else 1.0}
    return {name: round(value, 3) for name, value in shown.items()}


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    units = {"seconds": "s", "calls": "API calls", "writes": "API writes", "memory_mib": "MiB resident", "state_bytes": "bytes of state"}
    lines = [f"{result['rollouts']} rollouts ({result['strategy']}) of {result['replicas']} pods each, {result['cores']} cores"]
    lines.append(f"{'per rollout':<24}{'first':>10}{'median':>10}{'last':>10}{'growth':>10}")
    for name, unit in {**units, "list_pods_ms": "ms per list of pods"}.items():
        row = result[name]
        lines.append(f"{unit:<24}{row['first']:>10g}{row['median']:>10g}{row['last']:>10g}{row['growth']:>9.2f}x")
    lines.append(f"{result['seconds_in_all']:g} s in all, peak memory {result['peak_memory_mib']:g} MiB")
    lines.append(f"{result['deployments_left']} Deployments are left, the template among them")
    return "\n".join([*lines, "met" if result["met"] else "NOT met: something grew"])


# --- one rollout ------------------------------------------------------------------------------------------------------------------


class _TimedApi(Api):
    """Times its lists of pods."""

    list_ms: list[float]

    def _json(self, verb: str, kind: str, name: str, *, query: Any = (), body: Any = None, named: str = "") -> Any:
        began = time.perf_counter()
        try:
            return super()._json(verb, kind, name, query=query, body=body, named=named)
        finally:
            if kind == "Pod" and not name:
                self.list_ms.append(1000 * (time.perf_counter() - began))


class _Channel:
    """Which release is promoted."""

    def __init__(self) -> None:
        self.promoted, self.published = "", 0

    def release(self) -> str:
        """Its name."""
        return self.promoted

    def sequence(self) -> int:
        """How many there were."""
        return self.published

    def publish(self, release: str) -> None:
        """The next one."""
        self.promoted, self.published = release, self.published + 1


class _Judge:
    """Content with everything; looks at nothing but whether there are pods."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def preview(self, candidate: Sequence[Any]) -> list[Any]:
        """One check that passed."""
        from components.core.gate import Reason

        return [Reason(metric="golden", passed=bool(candidate), text=f"{len(candidate)} pods")]

    def measure(self, candidate: Sequence[Any], stable: Sequence[Any]) -> list[Any]:
        """Every metric is fine."""
        from serving.rollout.analysis.rules import Measurement
        from serving.rollout.state import stamp, utc_now

        text = f"within its bounds on {len(candidate)} pods beside {len(stable)}"
        return [Measurement(metric=name, outcome="successful", text=text, at=stamp(utc_now())) for name in self._plan.analysis.metrics()]


def _roll_out(api: _TimedApi, channel: _Channel, number: int, strategy: str) -> Course:
    from serving.rollout.analysis.settings import AnalysisSettings
    from serving.rollout.cluster.announce import Announcer
    from serving.rollout.cluster.begin import Site, begin
    from serving.rollout.notify import NotificationSettings

    plan = Plan.model_validate(
        {"strategy": strategy, "poll_seconds": _POLL, "scale_down_delay": 0.0, "analysis": AnalysisSettings(interval=0.01)}
    )
    names, release, api.list_ms = Names(namespace=api.namespace), f"{number:012x}", []
    heard = Announcer(api, names, "store", NotificationSettings(), lambda _: None)
    site = Site(api=api, names=names, judge=_Judge(plan), published=channel, say=lambda _: None, heard=heard)
    before, began = dict(api.calls), time.perf_counter()
    machine = begin(site, release, "", plan, run_id=f"run-{number}")
    machine.run()
    channel.publish(release)
    machine.run(finish=True)
    seconds = time.perf_counter() - began
    made = {verb: api.calls[verb] - before[verb] for verb in api.calls}
    state = api.get("ConfigMap", names.state)["data"]["state.json"]
    writes = sum(made[verb] for verb in WRITES)
    return Course(seconds, sum(made.values()), writes, _resident(), len(state), api.list_ms)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- the cluster ------------------------------------------------------------------------------------------------------------------


@contextmanager
def _api_server(kubeconfig: Path | None) -> Iterator[Path]:
    if kubeconfig is not None:
        yield kubeconfig
        return
    root = Path(__file__).resolve().parents[1]
    rig = Path(os.environ.get("DUAL_SHARED", root.parent / "shared")) / "rig" / "rig"
    if not rig.is_file():
        raise SystemExit(f"there is no Kubernetes: the rig is not at {rig} (set DUAL_SHARED), and no --kubeconfig was given")
    name = f"scale-{os.getpid()}"
    done = subprocess.run([rig, "control-plane", "up", name], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the rig could not start an API server: {done.stderr.strip()[-500:]}")
    try:
        yield Path(done.stdout.strip().splitlines()[-1])
    finally:
        subprocess.run([rig, "control-plane", "down", name], check=True, capture_output=True)


@contextmanager
def _cluster(kubeconfig: Path, namespace: str) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.rollout_scale", "--kubeconfig", str(kubeconfig), "--simulate", namespace]
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[1])
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def simulate(kubeconfig: Path, namespace: str) -> None:
    """Stand in for controllers, scheduler and kubelets in one namespace until somebody ends this process."""
    from benchmarks.rollout_scale_cluster import Cluster

    Cluster(kubeconfig, namespace).run()


def _delete_namespace(api: Api) -> None:
    api._client.call_api(f"/api/v1/namespaces/{api.namespace}", "DELETE", auth_settings=["BearerToken"], _preload_content=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicas", type=int, default=200)
    parser.add_argument("--rollouts", type=int, default=50)
    parser.add_argument("--short", action="store_true", help="20 replicas, 8 rollouts")
    parser.add_argument("--strategy", choices=["canary", "blue-green", "recreate"], default="canary")
    parser.add_argument("--kubeconfig", type=Path, help="another API server than the rig's")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--simulate", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.short:
        options.replicas, options.rollouts = 20, 8
    return options


if __name__ == "__main__":
    sys.exit(main())
