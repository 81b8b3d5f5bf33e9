"""Everything that a rollout on a cluster needs, put together from a store and the settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from components.core.channel import read_channel
from components.core.digest import sha256_bytes
from components.core.errors import DualError, UsageError
from components.core.gate import Reason
from components.core.release import MANIFEST, read_release
from components.core.stores import Store, join
from serving.rollout.analysis.analyst import Analyst
from serving.rollout.analysis.held import Held, ask_held
from serving.rollout.analysis.labelled import golden_images
from serving.rollout.analysis.pods import Connect, DirectAccess, PodTarget
from serving.rollout.analysis.rules import Measurement
from serving.rollout.analysis.smoke import check_preview, connected
from serving.rollout.cluster.announce import Announcer
from serving.rollout.cluster.api import Api, connect
from serving.rollout.cluster.begin import Site
from serving.rollout.cluster.holding import LABELS
from serving.rollout.cluster.names import Names
from serving.rollout.cluster.proxy import ProxyAccess
from serving.rollout.cluster.settings import SETTINGS_KEY, ClusterAccess, ClusterSettings, Plan
from serving.rollout.cluster.state import Say
from serving.rollout.cluster.turn import Witness
from serving.rollout.traffic import Query, golden_queries


@dataclass
class StoreChannel:
    """What the store's stable channel says of the pair. `DualError` if it says less than is known already: a volume that is not mounted."""

    store: Store
    at_least: int = 0
    """The sequence that it must have."""

    def release(self) -> str:
        """The promoted release; empty before the first."""
        return self._read()[0]

    def sequence(self) -> int:
        """The channel's sequence; 0 before the first."""
        return self._read()[1]

    def _read(self) -> tuple[str, int]:
        found = read_channel(self.store)
        release, sequence = (found[0].release, found[0].sequence) if found else ("", 0)
        if sequence < self.at_least:
            there = f"has sequence {sequence}" if found else "is not there"
            fix = "Is it the store of this rollout, and mounted? Nothing is done until it is"
            raise DualError(f"the channel {there}, but it had {self.at_least} before", where=self.store.uri, fix=fix)
        self.at_least = sequence
        return release, sequence


class GoldenJudge:
    """Asks pods the candidate's golden images, and measures them as the plan says."""

    def __init__(self, plan: Plan, queries: Sequence[Query], name: str, analyst: Analyst, access: Connect) -> None:
        """`access` says how a pod is reached."""
        self._plan, self._queries, self._name, self._analyst, self._access = plan, queries, name, analyst, access

    def preview(self, candidate: list[PodTarget]) -> list[Reason]:
        """Every pod is asked every golden image."""
        smoke, least = self._plan.analysis.smoke, self._plan.analysis.golden_agreement.min
        return check_preview(
            candidate,
            self._queries,
            self._name,
            min_agreement=1.0 if least is None else least,
            concurrency=smoke.concurrency,
            timeout=smoke.timeout,
            connect=self._access,
        )

    def measure(self, candidate: list[PodTarget], stable: list[PodTarget]) -> list[Measurement]:
        """One round of the analyst."""
        return self._analyst.measure(candidate, stable)


def witness_of(access: Connect, name: str) -> Witness:
    """Asks every pod for itself, over connections of its own: such looks come seldom."""

    def held(pods: list[PodTarget]) -> dict[PodTarget, Held]:
        with connected(pods, access) as accesses:
            return {pod: ask_held(each, name, LABELS) for pod, each in accesses.items()}

    return held


def connect_to(settings: ClusterAccess) -> Api:
    """The cluster that the settings name."""
    return connect(settings.namespace, context=settings.context, patience=settings.patience)


@contextmanager
def open_site(
    store: Store, release: str, name: str, settings: ClusterSettings, say: Say, *, api: Api | None = None, sequence: int = 0
) -> Iterator[tuple[Site, Plan]]:
    """The site for the rollout of `release`, and its plan; connections to pods are closed at the end.

    `sequence` is one that the store's channel is known to have had.
    """
    api = api or connect_to(settings)
    names = Names(namespace=api.namespace, name=name)
    plan = plan_for(api, names, settings)
    found = read_release(store, release)
    queries = golden_queries(store, found)
    access = _access(api, name, settings, plan)
    with Analyst(plan.analysis, queries, name, labelled=golden_images(queries), connect=access) as analyst:
        judge = GoldenJudge(plan, queries, name, analyst, access)
        heard, held = Announcer(api, names, store.uri, settings.notifications, say), witness_of(access, name)
        try:
            yield Site(api=api, names=names, judge=judge, published=StoreChannel(store, sequence), say=say, heard=heard, held=held), plan
        finally:
            writes = sum(count for verb, count in api.calls.items() if verb != "GET")
            say(f"asked the API server {api.calls['GET']} times, wrote {writes} times")


def release_digest(store: Store, release: str) -> str:
    """SHA-256 of release.json, by which pods know that they fetched the right one."""
    return sha256_bytes(store.get(join("releases", release, MANIFEST)).data)


def plan_for(api: Api, names: Names, settings: ClusterSettings) -> Plan:
    """The run's own plan, else the operators' in the ConfigMap `<name>-rollout-settings`, else the defaults.

    Raises `UsageError` that names the key if the ConfigMap's plan is wrong.
    """
    if settings.plan is not None:
        return settings.plan
    found = api.find("ConfigMap", f"{names.name}-rollout-settings")
    where = f"ConfigMap {names.namespace}/{names.name}-rollout-settings, {SETTINGS_KEY}"
    return parse_plan((found.get("data") or {}).get(SETTINGS_KEY, "") if found else "", where)


def parse_plan(text: str, where: str) -> Plan:
    """A plan from YAML; empty text means the defaults. `UsageError` names the key that is wrong."""
    try:
        values: Any = yaml.safe_load(text) or {}
        return Plan.model_validate(values)
    except yaml.YAMLError as error:
        raise UsageError(f"is not YAML: {error}", where=where, fix="Correct it and apply it again") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{key}: {first['msg']}, found {first['input']!r}", where=where, fix="Correct it and apply it again") from None


def _access(api: Api, name: str, settings: ClusterSettings, plan: Plan) -> Connect:
    if settings.access == "proxy":
        return lambda target: ProxyAccess(api, target, name)
    return lambda target: DirectAccess(target, name, timeout=plan.analysis.smoke.timeout)
