"""A publication over the wire: whatever one of its requests is answered with, the channel is whole, and running again ends well."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core.channel import read_stored_channel
from components.core.envelope import trusted_signatures
from components.core.errors import DualError
from components.core.keyring import Keyring
from components.core.release import Release
from components.core.stores import Store
from components.publish_mobile.garbage import Window, collect_garbage, find_garbage
from components.publish_mobile.history import committed, read_history
from components.publish_mobile.private_key import make_key
from components.publish_mobile.publication import publish_release
from components.publish_mobile.signing import Signing
from components.publish_mobile.steer import widen
from components.publish_mobile.verify import verify_store
from tests.release_pieces import make_store
from tests.store import fake_gcs, fake_s3
from tests.store.conftest import Opener

STATUSES = (403, 404, 409, 412, 429, 500, 503)
TURNS = int(os.environ.get("DUAL_FAULT_TURNS", "2"))
"""In each turn every request meets another status; DUAL_FAULT_TURNS=7 is every status at every request (minutes)."""
KEY = make_key()
SIGNING = Signing((KEY,), Keyring(keys=[KEY.public]), "")
Bucket = fake_gcs.Bucket | fake_s3.Bucket


@pytest.fixture(params=["gcs", "s3"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def opener(kind: str, request: pytest.FixtureRequest) -> Opener:
    return request.getfixturevalue(f"{kind}_opener")


@pytest.fixture
def bucket(kind: str, request: pytest.FixtureRequest) -> Bucket:
    return request.getfixturevalue(f"{kind}_bucket")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Cloud Storage client waits a second and more before it repeats a request; here that is time lost."""
    monkeypatch.setattr("google.api_core.retry.retry_unary.time.sleep", lambda seconds: None)
    for module in (fake_gcs, fake_s3):
        # Short pages are another suite's business.
        monkeypatch.setattr(module, "_PAGE", 1000)


@pytest.fixture
def releases(opener: Opener, tmp_path: Path) -> list[Release]:
    """Two releases in the bucket, the first of which is published."""
    local, made = make_store(tmp_path, 2)
    store = opener()
    for name in local.list("releases/"):
        store.put(name, local.get(name).data)
    publish_release(store, made[0].id, signing=SIGNING)
    return made


def requests_of(bucket: Bucket, action: Callable[[], object]) -> int:
    """How many requests an action makes."""
    bucket.count = 0
    action()
    return bucket.count


def snapshot(bucket: Bucket) -> dict[str, object]:
    return dict(bucket.objects)


def restore(bucket: Bucket, objects: dict[str, object]) -> None:
    bucket.objects = dict(objects)  # type: ignore[assignment]
    bucket.faults, bucket.count = {}, 0


def state(store: Store) -> tuple[int, str]:
    """Sequence and release of the channel, which is signed and names what is there."""
    found = read_stored_channel(store)
    assert found is not None
    assert found.envelope is not None
    assert trusted_signatures(found.envelope, SIGNING.known)
    halves = [found.channel, *([found.channel.fallback] if found.channel.fallback else [])]
    assert all(store.exists(half.mobile.blob) for half in halves)
    return found.channel.sequence, found.channel.release


def check_fault(bucket: Bucket, opener: Opener, status: int, number: int, release: str) -> None:
    """One request is refused: an error of ours or none, a whole channel, and the next run publishes."""
    bucket.count, bucket.faults = 0, {number: status}
    with contextlib.suppress(DualError):
        publish_release(opener(), release, basis_points=1000, signing=SIGNING)
    bucket.faults = {}
    sequence, current = state(opener())
    assert (sequence >= 2) == (current == release)
    channel = publish_release(opener(), release, basis_points=1000, signing=SIGNING)
    assert state(opener()) == (channel.sequence, release)
    assert [entry.action for entry in committed(read_history(opener()), channel)] == ["publish", "publish"]


@pytest.mark.parametrize("status", STATUSES)
def test_the_swap_of_the_channel_is_refused_once(bucket: Bucket, opener: Opener, releases: list[Release], status: int) -> None:
    before = snapshot(bucket)
    total = requests_of(bucket, lambda: publish_release(opener(), releases[1].id, basis_points=1000, signing=SIGNING))
    restore(bucket, before)
    check_fault(bucket, opener, status, total, releases[1].id)
    widen(opener(), 5000, signing=SIGNING)
    assert verify_store(opener()) == []


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(TURNS))
def test_every_request_is_refused_once(bucket: Bucket, opener: Opener, releases: list[Release], turn: int) -> None:
    before = snapshot(bucket)
    total = requests_of(bucket, lambda: publish_release(opener(), releases[1].id, basis_points=1000, signing=SIGNING))
    assert total > 15
    for number in range(1, total + 1):
        restore(bucket, before)
        check_fault(bucket, opener, STATUSES[(number + turn) % len(STATUSES)], number, releases[1].id)


def test_an_upload_whose_answer_was_lost_is_no_lost_race(gcs_bucket: fake_gcs.Bucket, gcs_opener: Opener, tmp_path: Path) -> None:
    local, (first, second) = make_store(tmp_path, 2)
    store = gcs_opener()
    for name in local.list("releases/"):
        store.put(name, local.get(name).data)
    publish_release(store, first.id, signing=SIGNING)
    gcs_bucket.lose_answers = 5
    assert publish_release(gcs_opener(), second.id, signing=SIGNING).sequence == 2
    assert verify_store(gcs_opener()) == []


def test_garbage_is_collected_in_buckets_too(opener: Opener, releases: list[Release]) -> None:
    publish_release(opener(), releases[1].id, signing=SIGNING)
    garbage = collect_garbage(opener(), Window(publications=1, days=0.0))
    assert garbage.names()[-1] == f"mobile/blobs/{releases[0].mobile_file().sha256}.tflite"
    assert find_garbage(opener(), Window(publications=1, days=0.0)).names() == []
    assert verify_store(opener()) == []
