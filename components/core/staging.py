"""Which installations use the candidate of a channel: the rule that every client must compute alike.

    bucket(installation) = first 4 bytes of SHA-256("<channel>:<salt>:<installation id>") as a big-endian number, modulo 10,000
    an installation is in the rollout if its bucket < basis_points

The text is UTF-8. A wider percentage of the same salt keeps every installation that was in, because a bucket never changes.
"""

from decimal import Decimal
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field

from components.core.errors import UsageError

BASIS = 10_000
"""Basis points in a whole: percentages have two decimals."""


class Staging(BaseModel):
    """How far a channel's candidate has been rolled out to devices."""

    model_config = ConfigDict(frozen=True)

    basis_points: int = Field(default=BASIS, ge=0, le=BASIS)
    """Hundredths of a percent of the installations."""
    paused: bool = False
    """Nobody who has not got the candidate takes it; who has it keeps it."""
    salt: str = ""
    """The candidate's release: each release begins with other installations."""

    def includes(self, channel: str, installation: str, *, has_candidate: bool) -> bool:
        """Whether this installation is to use the candidate."""
        inside = self.basis_points >= BASIS or bucket(channel, self.salt, installation) < self.basis_points
        return inside and (has_candidate or not self.paused)

    def percent(self) -> str:
        """The percentage in words, `12.5 %`."""
        return f"{self.basis_points / 100:g} %"


EVERYONE = Staging()


def bucket(channel: str, salt: str, installation: str) -> int:
    """The installation's number in [0, 10000) for this channel and salt."""
    digest = sha256(f"{channel}:{salt}:{installation}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % BASIS


def basis_points(percent: float) -> int:
    """A percentage in basis points; `UsageError` unless it is 0 to 100 with at most two decimals."""
    points = Decimal(str(percent)) * 100
    if not points.is_finite() or points != points.to_integral_value() or not 0 <= points <= BASIS:
        raise UsageError(f"{percent} is no percentage", where="--percent", fix="Give 0 to 100 with at most two decimals, for example 12.5")
    return int(points)
