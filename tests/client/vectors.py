"""docs/channel-vectors.json: what an implementation of docs/channel-spec.md must answer. `python -m tests.client.vectors` writes it.

Everything in it is a function of fixed seeds, so that it changes only when the format does.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.core.channel import Channel, CloudPointer, Fallback, MobilePointer, mobile_contract
from components.core.digest import sha256_bytes
from components.core.envelope import PAYLOAD_TYPE, seal, signed_bytes
from components.core.examples import labels_digest
from components.core.keyring import public_key
from components.core.preprocessing import Preprocessing
from components.core.staging import Staging, bucket
from components.publish_mobile.private_key import PrivateKey
from tests.conftest import ROOT

FILE = ROOT / "docs" / "channel-vectors.json"
LABELS = ["daisy", "roses", "tulips"]
INSTALLATIONS = [f"{number:08x}-1111-4222-8333-{number * 7919:012x}" for number in range(1, 9)]


def key(seed: int) -> PrivateKey:
    """The key of 32 equal bytes: known to everybody, good for tests alone."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return PrivateKey(public_key(secret.public_key().public_bytes_raw(), name=f"test key {seed}"), secret)


TRUSTED, NEXT, STRANGER = key(1), key(2), key(3)


def manifest(**changes: Any) -> Channel:
    """A staged publication."""
    facts: dict[str, Any] = {
        "channel": "stable",
        "model": "flowers",
        "sequence": 7,
        "release": "0a1b2c3d4e5f",
        "previous": "9f8e7d6c5b4a",
        "cloud": CloudPointer(version=int("0a1b2c3d4e5f", 16), path=f"releases/0a1b2c3d4e5f/cloud/{int('0a1b2c3d4e5f', 16)}"),
        "mobile": _mobile(b"the new model"),
        "policy": {"threshold": 0.62},
        "staging": Staging(basis_points=2500, salt="0a1b2c3d4e5f"),
        "fallback": Fallback(release="9f8e7d6c5b4a", mobile=_mobile(b"the old model"), policy={"threshold": 0.7}),
        "published": "2026-11-26T06:00:00+00:00",
    }
    return Channel(**(facts | changes))


def _mobile(model: bytes) -> MobilePointer:
    digest = sha256_bytes(model)
    return MobilePointer(
        blob=f"mobile/blobs/{digest}.tflite",
        sha256=digest,
        size=len(model),
        contract=mobile_contract(Preprocessing(height=224, width=224), len(LABELS)),
        labels=LABELS,
        labels_digest=labels_digest(LABELS),
        minimum_runtime="2.3.0",
    )


def vectors() -> dict[str, Any]:
    """The whole content of the file."""
    return {
        "about": "Test vectors of docs/channel-spec.md. The private keys are known to everybody: never trust their public halves.",
        "keys": [_key(each) for each in (TRUSTED, NEXT, STRANGER)],
        "trust": {"keys": [TRUSTED.public.key_id], "channel": "stable", "model": "flowers"},
        "signed_bytes": _signed_bytes(),
        "channels": list(_channels()),
        "buckets": _buckets(),
        "staging": list(_staging()),
        "policy": [
            {"threshold": threshold, "score": score, "answers": answers}
            for threshold, score, answers in ((0.62, 0.62, "mobile"), (0.62, 0.6199, "cloud"), (0.0, 0.0, "mobile"), (2.0, 0.999, "cloud"))
        ],
    }


def _key(each: PrivateKey) -> dict[str, str]:
    seed = each.secret.private_bytes_raw()
    return {"key_id": each.public.key_id, "public_key": each.public.public_key, "private_seed": b64encode(seed).decode()}


def _signed_bytes() -> dict[str, str]:
    body = '{"é": 1}'.encode()
    message = signed_bytes(PAYLOAD_TYPE, body)
    signature = TRUSTED.sign(message)
    return {
        "payload_type": PAYLOAD_TYPE,
        "payload": b64encode(body).decode(),
        "message_hex": message.hex(),
        "signature": b64encode(signature).decode(),
    }


def _channels() -> Iterator[dict[str, Any]]:
    good = manifest()
    body = good.to_json()
    yield _case("signed by the trusted key", _file(body), "accept", good)
    yield _case("signed by the trusted key and a new one (rotation)", _file(body, TRUSTED, NEXT), "accept", good)
    yield _case("a stranger's signature in front of the trusted one", _file(body, STRANGER, TRUSTED), "accept", good)
    unknown = json.dumps(json.loads(body) | {"later": {"nobody": "knows"}}).encode()
    yield _case("unknown fields are passed over", _file(unknown), "accept", good, digest=sha256_bytes(unknown))
    yield _case("the same as the newest seen", _file(body), "accept", good, seen=(7, sha256_bytes(body)))
    yield _case("signed by a stranger", _file(body, STRANGER), "untrusted")
    yield _case("signed by nobody", _file(body, signers=()), "untrusted")
    yield _case("the stranger's signature under the trusted key's id", _relabelled(body), "untrusted")
    edited = json.loads(_file(body)) | {"payload": b64encode(body.replace(b'"sequence": 7', b'"sequence": 8')).decode()}
    yield _case("payload edited after signing", json.dumps(edited), "untrusted")
    yield _case("a signature that is no base64", _with_signature(body, "***"), "untrusted")
    yield _case("another payload type", json.dumps(json.loads(_file(body)) | {"payloadType": "application/json"}), "untrusted")
    yield _case("no envelope", body.decode(), "untrusted")
    yield _case("not JSON", "<html>", "untrusted")
    yield _case("another channel", _file(manifest(channel="beta").to_json()), "untrusted")
    yield _case("another model", _file(manifest(model="cats").to_json()), "untrusted")
    yield _case("older than the newest seen", _file(body), "rollback", seen=(8, "0" * 64))
    yield _case("another of the same sequence", _file(body), "rollback", seen=(7, "0" * 64))
    future = json.dumps(json.loads(body) | {"schema": "dual.channel/v9"}).encode()
    yield _case("a format of the future", _file(future), "unsupported")


def _case(
    name: str, file: str, verdict: str, good: Channel | None = None, seen: tuple[int, str] = (0, ""), digest: str = ""
) -> dict[str, Any]:
    case = {"name": name, "file": file, "seen": {"sequence": seen[0], "digest": seen[1]}, "verdict": verdict}
    if good is None:
        return case
    return case | {"sequence": good.sequence, "digest": digest or sha256_bytes(good.to_json()), "release": good.release}


def _file(body: bytes, *keys: PrivateKey, signers: tuple[PrivateKey, ...] | None = None) -> str:
    return seal(body, (keys or (TRUSTED,)) if signers is None else signers).to_json().decode()


def _relabelled(body: bytes) -> str:
    file = json.loads(_file(body, STRANGER))
    file["signatures"][0]["keyid"] = TRUSTED.public.key_id
    return json.dumps(file)


def _with_signature(body: bytes, signature: str) -> str:
    file = json.loads(_file(body))
    file["signatures"][0]["sig"] = signature
    return json.dumps(file)


def _buckets() -> list[dict[str, Any]]:
    salts = ("0a1b2c3d4e5f", "9f8e7d6c5b4a", "")
    return [
        {"channel": channel, "salt": salt, "installation": installation, "bucket": bucket(channel, salt, installation)}
        for channel in ("stable", "beta")
        for salt in salts
        for installation in INSTALLATIONS
    ]


def _staging() -> Iterator[dict[str, Any]]:
    person = INSTALLATIONS[0]
    mine = bucket("stable", "0a1b2c3d4e5f", person)
    for points in (0, mine, mine + 1, 9999, 10_000):
        for paused in (False, True):
            for has in (False, True):
                staging = Staging(basis_points=points, paused=paused, salt="0a1b2c3d4e5f")
                uses = staging.includes("stable", person, has_candidate=has)
                facts = {"basis_points": points, "paused": paused, "salt": staging.salt}
                yield {"staging": facts, "installation": person, "has_candidate": has, "uses_candidate": uses}


def main(path: Path = FILE) -> None:
    """Write the file."""
    path.write_text(json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
