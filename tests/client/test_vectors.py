"""The published test vectors: our client answers them, and so does the specification read literally, without anything of ours."""

import json
from base64 import b64decode
from hashlib import sha256
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from components.core.errors import RollbackError, UnsupportedError, UntrustedError
from components.core.keyring import Keyring, public_key
from components.core.policy import LayeredPolicy
from serving.client.trust import Seen, Trust, check_channel
from tests.client.vectors import FILE, vectors

CONTENT: dict[str, Any] = json.loads(FILE.read_text())
KEYS = {key["key_id"]: b64decode(key["public_key"]) for key in CONTENT["keys"]}
ERRORS = {"untrusted": UntrustedError, "rollback": RollbackError, "unsupported": UnsupportedError}


def test_the_file_is_what_its_seeds_make() -> None:
    assert vectors() == CONTENT, "run: python -m tests.client.vectors"


@pytest.mark.parametrize("case", CONTENT["channels"], ids=lambda case: case["name"])
def test_our_client_answers_as_the_vectors_say(case: dict[str, Any]) -> None:
    trust = Trust(Keyring(keys=[public_key(KEYS[each]) for each in CONTENT["trust"]["keys"]]), "stable", CONTENT["trust"]["model"])
    seen = Seen(case["seen"]["sequence"], case["seen"]["digest"])
    if case["verdict"] != "accept":
        with pytest.raises(ERRORS[case["verdict"]]):
            check_channel(case["file"].encode(), trust, seen, "vector")
        return
    trusted = check_channel(case["file"].encode(), trust, seen, "vector")
    assert (trusted.seen.sequence, trusted.seen.digest, trusted.manifest.release) == (case["sequence"], case["digest"], case["release"])


@pytest.mark.parametrize("case", CONTENT["channels"], ids=lambda case: case["name"])
def test_the_specification_read_literally_answers_the_same(case: dict[str, Any]) -> None:
    assert literally(case["file"], case["seen"]) == case["verdict"]


def literally(file: str, seen: dict[str, Any]) -> str:
    """Sections 2 to 4 of the specification, line by line."""
    try:
        envelope = json.loads(file)
        kind, payload = envelope["payloadType"], b64decode(envelope["payload"], validate=True)
        signatures = envelope["signatures"]
    except (ValueError, KeyError, TypeError):
        return "untrusted"
    if kind != "application/vnd.dual-deploy.channel+json":
        return "untrusted"
    message = b" ".join([b"DSSEv1", str(len(kind.encode())).encode(), kind.encode(), str(len(payload)).encode(), payload])
    if not any(verifies(signature, message) for signature in signatures):
        return "untrusted"
    manifest = json.loads(payload)
    if manifest["schema"] != "dual.channel/v2":
        return "unsupported"
    if manifest["channel"] != CONTENT["trust"]["channel"] or manifest["model"] != CONTENT["trust"]["model"]:
        return "untrusted"
    older = manifest["sequence"] < seen["sequence"]
    other = manifest["sequence"] == seen["sequence"] and sha256(payload).hexdigest() != seen["digest"]
    return "rollback" if older or other else "accept"


def verifies(signature: dict[str, str], message: bytes) -> bool:
    if signature["keyid"] not in CONTENT["trust"]["keys"]:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(KEYS[signature["keyid"]]).verify(b64decode(signature["sig"], validate=True), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_the_signed_bytes_and_their_signature() -> None:
    given = CONTENT["signed_bytes"]
    key = Ed25519PublicKey.from_public_bytes(KEYS[CONTENT["trust"]["keys"][0]])
    key.verify(b64decode(given["signature"]), bytes.fromhex(given["message_hex"]))


def test_buckets_and_shares_computed_literally() -> None:
    def literally_bucket(channel: str, salt: str, installation: str) -> int:
        return int(sha256(f"{channel}:{salt}:{installation}".encode()).hexdigest()[:8], 16) % 10_000

    assert len(CONTENT["buckets"]) == 48
    for case in CONTENT["buckets"]:
        assert literally_bucket(case["channel"], case["salt"], case["installation"]) == case["bucket"]
    for case in CONTENT["staging"]:
        staging = case["staging"]
        inside = literally_bucket("stable", staging["salt"], case["installation"]) < staging["basis_points"]
        assert case["uses_candidate"] == (inside and (case["has_candidate"] or not staging["paused"]))


def test_the_layered_policy() -> None:
    for case in CONTENT["policy"]:
        assert LayeredPolicy(threshold=case["threshold"]).decide(case["score"]) == case["answers"]
