"""Traffic splits: whole percents that sum to 100, of which others' shares stay as they are.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints (trafficSplit): a deployed model that is not named
gets nothing, and the map is empty if the endpoint takes no traffic at all.
"""

from collections.abc import Iterable, Mapping

Split = dict[str, int]
_ALL = 100


def ours(split: Mapping[str, int], mine: Iterable[str]) -> Split:
    """The shares above 0 of our own deployed models."""
    own = set(mine)
    return {identity: share for identity, share in split.items() if identity in own and share}


def room(split: Mapping[str, int], mine: Iterable[str]) -> int:
    """The percents of the endpoint's traffic that are not somebody else's."""
    own = set(mine)
    return _ALL - sum(share for identity, share in split.items() if identity not in own)


def divided(split: Mapping[str, int], mine: Iterable[str], *, stable: str, candidate: str, weight: int) -> Split:
    """The complete split in which the candidate has `weight` percent of our room and the stable model the rest; 0 is written out.

    Without a stable model the candidate has all (weight 100) or nothing. Others' shares stay. Empty if nobody has any.
    """
    own = set(mine)
    others = {identity: share for identity, share in split.items() if identity not in own and share}
    mine_in_all = room(split, own)
    given = {candidate: share_of(weight, mine_in_all)} if candidate else {}
    if stable and stable != candidate:
        given = {stable: mine_in_all - given.get(candidate, 0), **given}
    whole = {**others, **given}
    return whole if sum(whole.values()) else {}


def share_of(weight: int, room_left: int) -> int:
    """`weight` percent of so many percents, in whole ones: at least 1 where any is asked for and the stable model keeps one."""
    if weight in (0, _ALL):
        return room_left * weight // _ALL
    return min(max(1, round(room_left * weight / _ALL)), max(1, room_left - 1))


def same(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Whether two splits send traffic alike: a share of 0 and none are the same."""
    return {k: v for k, v in one.items() if v} == {k: v for k, v in other.items() if v}


def in_words(split: Mapping[str, int], names: Mapping[str, str]) -> str:
    """`release: 90 %, other: 10 %` by the names of deployed models."""
    return ", ".join(f"{names.get(identity, identity)}: {share} %" for identity, share in split.items()) or "no traffic at all"
