"""The channel's file: an envelope that verifies exact bytes, a manifest that fits its schema, and the rule of percentages."""

import json
from base64 import b64decode, b64encode
from pathlib import Path

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from components.core.channel import read_channel, read_stored_channel
from components.core.channel_schema import ENVELOPE_SCHEMA, MANIFEST_SCHEMA, envelope_schema, manifest_schema
from components.core.envelope import Envelope, Signature, seal, trusted_signatures
from components.core.errors import DataError, UsageError
from components.core.keyring import Keyring, public_key
from components.core.staging import Staging, basis_points, bucket
from components.publish_mobile.private_key import PrivateKey, make_key
from components.publish_mobile.publication import publish_release
from tests.release_pieces import CHANNEL, make_store, manifest_of


@pytest.fixture(scope="module")
def keys() -> list[PrivateKey]:
    return [make_key() for _ in range(3)]


def keyring(*keys: PrivateKey) -> Keyring:
    return Keyring(keys=[key.public for key in keys])


def test_file_and_manifest_satisfy_their_published_schemas(tmp_path: Path) -> None:
    assert json.loads(MANIFEST_SCHEMA.read_text()) == manifest_schema(), "run: python -m components.core.channel_schema"
    assert json.loads(ENVELOPE_SCHEMA.read_text()) == envelope_schema(), "run: python -m components.core.channel_schema"
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id, basis_points=2500)
    jsonschema.validate(json.loads(store.get(CHANNEL).data), envelope_schema())
    manifest = manifest_of(store)
    jsonschema.validate(manifest, manifest_schema())
    assert manifest["fallback"]["release"] == first.id
    for damage in ({"sequence": 0}, {"schema": "dual.channel/v1"}, {"staging": {"basis_points": 10_001}}, {"mobile": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(manifest | damage, manifest_schema())


def test_one_trusted_signature_is_enough_and_others_are_passed_over(keys: list[PrivateKey]) -> None:
    old, new, strange = keys
    envelope = seal(b"{}", [old, new])
    assert trusted_signatures(envelope, keyring(old)) == [old.public.key_id]
    assert trusted_signatures(envelope, keyring(new, strange)) == [new.public.key_id]
    assert trusted_signatures(envelope, keyring(strange)) == []
    assert trusted_signatures(envelope, Keyring()) == []


def test_another_implementation_verifies_the_same_bytes(keys: list[PrivateKey]) -> None:
    """The whole of what a phone does, from the specification, with nothing of ours."""
    file = json.loads(seal('{"é": 1}'.encode(), keys[:1]).to_json())
    payload, kind = b64decode(file["payload"]), file["payloadType"].encode()
    message = b"DSSEv1 " + str(len(kind)).encode() + b" " + kind + b" " + str(len(payload)).encode() + b" " + payload
    key = Ed25519PublicKey.from_public_bytes(b64decode(keys[0].public.public_key))
    key.verify(b64decode(file["signatures"][0]["sig"]), message)


def test_a_changed_byte_a_changed_type_and_a_swapped_signature_are_seen(keys: list[PrivateKey]) -> None:
    envelope, other = seal(b'{"sequence": 7}', keys[:1]), seal(b'{"sequence": 8}', keys[:1])
    ring = keyring(keys[0])
    for number in range(len(envelope.body())):
        changed = bytearray(envelope.body())
        changed[number] ^= 1
        assert not trusted_signatures(envelope.model_copy(update={"payload": b64encode(changed).decode()}), ring)
    assert not trusted_signatures(envelope.model_copy(update={"payload_type": "text/plain"}), ring)
    assert not trusted_signatures(envelope.model_copy(update={"signatures": other.signatures}), ring)


@pytest.mark.parametrize("sig", ["AAAA", "not base64!", b64encode(bytes(64)).decode(), b64encode(bytes(63)).decode()])
def test_a_malformed_signature_is_none(keys: list[PrivateKey], sig: str) -> None:
    forged = Envelope(payload="e30=", signatures=[Signature(keyid=keys[0].public.key_id, sig=sig)])
    assert trusted_signatures(forged, keyring(keys[0])) == []


def test_a_keyring_refuses_a_key_under_another_id(keys: list[PrivateKey]) -> None:
    wrong = keys[0].public.model_dump() | {"key_id": keys[1].public.key_id}
    with pytest.raises(ValueError, match="key_id must be"):
        Keyring.model_validate({"keys": [wrong]})
    with pytest.raises(ValueError, match="has 31 bytes"):
        public_key(bytes(31))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "object"),
        (b'{"payloadType": "application/vnd.dual-deploy.channel+json", "payload": "e30=", "signatures": []}', "channel: Field required"),
        (b'{"payloadType": "application/vnd.dual-deploy.channel+json", "payload": "{}", "signatures": []}', "payload"),
        (b'{"payloadType": "text/plain", "payload": "e30=", "signatures": []}', "payloadType"),
        (b'{"schema": "dual.channel/v1"}', "channel: Field required"),
    ],
)
def test_a_malformed_channel_names_file_and_key(tmp_path: Path, content: bytes, text: str) -> None:
    store, _ = make_store(tmp_path, 1)
    store.put(CHANNEL, content)
    with pytest.raises(DataError, match=text) as caught:
        read_channel(store)
    assert CHANNEL in str(caught.value)


def test_the_first_versions_manifest_is_read(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    publish_release(store, release.id)
    put_first_version(store)
    found = read_stored_channel(store)
    assert found is not None
    assert (found.channel.release, found.channel.sequence, found.envelope, found.is_signed()) == (release.id, 1, None, False)
    assert found.channel.staging.includes("stable", "anybody", has_candidate=False)


def put_first_version(store: object) -> None:
    """Put the stable channel as the first version wrote it."""
    manifest = manifest_of(store)  # type: ignore[arg-type]
    for key in ("model", "staging", "fallback"):
        del manifest[key]
    for key in ("minimum_runtime", "selftest"):
        del manifest["mobile"][key]
    store.put(CHANNEL, json.dumps(manifest | {"schema": "dual.channel/v1"}).encode())  # type: ignore[attr-defined]


INSTALLATIONS = st.uuids().map(str)


@given(INSTALLATIONS, st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_wider_percentage_keeps_everybody_who_was_in(installation: str, one: int, other: int) -> None:
    narrow, wide = (Staging(basis_points=points, salt="0123456789ab") for points in sorted((one, other)))
    if narrow.includes("stable", installation, has_candidate=False):
        assert wide.includes("stable", installation, has_candidate=False)


@given(INSTALLATIONS)
def test_nobody_at_nothing_everybody_at_all(installation: str) -> None:
    assert not Staging(basis_points=0, salt="x").includes("stable", installation, has_candidate=True)
    assert Staging(basis_points=10_000).includes("stable", installation, has_candidate=False)


@given(INSTALLATIONS)
def test_a_pause_gives_to_nobody_new_and_takes_from_nobody(installation: str) -> None:
    running = Staging(basis_points=5000, salt="x")
    paused = running.model_copy(update={"paused": True})
    assert not paused.includes("stable", installation, has_candidate=False)
    inside = running.includes("stable", installation, has_candidate=True)
    assert paused.includes("stable", installation, has_candidate=True) == inside


def test_a_percentage_means_that_share_and_each_release_begins_with_others() -> None:
    people = [f"installation-{number}" for number in range(20_000)]
    for points in (100, 2500, 9000):
        inside = sum(bucket("stable", "a", person) < points for person in people) / len(people)
        assert inside == pytest.approx(points / 10_000, abs=0.01)
    both = sum(bucket("stable", "a", p) < 1000 and bucket("stable", "b", p) < 1000 for p in people) / len(people)
    assert both == pytest.approx(0.01, abs=0.003)


def test_percentages_have_two_decimals() -> None:
    assert [basis_points(percent) for percent in (0, 0.01, 12.5, 33.33, 100)] == [0, 1, 1250, 3333, 10_000]
    for wrong in (-1, 100.01, 0.001, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="no percentage"):
            basis_points(wrong)
