"""What is published to whom, and who signed it, for people and for scripts."""

from dataclasses import dataclass
from typing import Any, Literal

from components.core.channel import STABLE, StoredChannel
from components.core.envelope import trusted_signatures
from components.core.keyring import Keyring
from components.core.staging import BASIS
from components.core.stores import Store
from components.publish_mobile.publication import require_channel
from components.publish_mobile.signing import own_keyring

Verdict = Literal["good", "bad", "unknown key"]


@dataclass(frozen=True)
class Status:
    """A channel, and what this machine's keyring says of its signatures."""

    found: StoredChannel
    signatures: dict[str, Verdict]
    """Key id → whether its signature fits."""

    def to_json(self) -> dict[str, Any]:
        """For scripts: the manifest, and the signatures."""
        return {"channel": self.found.channel.model_dump(mode="json", by_alias=True), "signatures": self.signatures}

    def lines(self) -> list[str]:
        """For people."""
        channel = self.found.channel
        staging = channel.staging
        share = f"{staging.percent()} of the devices{', paused' if staging.paused else ''}"
        rest = [f"fallback  {channel.fallback.release} for the others"] if channel.fallback else []
        signed = [f"signed    {key} ({verdict})" for key, verdict in self.signatures.items()]
        return [
            f"channel   {channel.channel}, sequence {channel.sequence}, published {channel.published}",
            f"mobile    {channel.release} for {share}",
            f"          {channel.mobile.size / 1000:.0f} kB, asks the cloud where its confidence is below {_threshold(channel.policy)}",
            *rest,
            self._cloud(),
            *(signed or ["signed    by nobody: devices refuse it unless they were told to accept that"]),
            f"next      {self._next()}",
        ]

    def _cloud(self) -> str:
        channel = self.found.channel
        return f"cloud     {channel.release}, all servers" if channel.channel == STABLE else "cloud     as the channel stable says"

    def _next(self) -> str:
        staging = self.found.channel.staging
        if staging.paused:
            return "dual publish resume, or dual publish undo"
        if staging.basis_points < BASIS:
            return "dual publish widen PERCENT, pause or undo"
        return "dual publish undo goes back to " + self.found.channel.previous if self.found.channel.previous else "nothing before it"


def status_of(store: Store, keyring: Keyring | None = None, channel: str = STABLE) -> Status:
    """Where a channel stands; `UsageError` if nothing was published. `keyring` default: this user's keys."""
    found = require_channel(store, "there is no status", channel)
    return Status(found, _verdicts(found, keyring or own_keyring()))


def _verdicts(found: StoredChannel, keyring: Keyring) -> dict[str, Verdict]:
    if found.envelope is None:
        return {}
    good = trusted_signatures(found.envelope, keyring)
    return {
        each.keyid: "good" if each.keyid in good else "bad" if keyring.find(each.keyid) else "unknown key"
        for each in found.envelope.signatures
    }


def _threshold(policy: Any) -> str:
    value = policy.get("threshold")
    return f"{value:g}" if isinstance(value, int | float) else "?"
