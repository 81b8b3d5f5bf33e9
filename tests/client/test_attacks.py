"""What a wrong manifest or file does to a device: a typed error, and the old version stays in service."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import pytest

from components.core.digest import sha256_bytes
from components.core.envelope import seal
from components.core.errors import (
    DamagedError,
    RollbackError,
    SelfTestError,
    UnsupportedError,
    UntrustedError,
    UpdateError,
)
from components.publish_mobile.private_key import make_key
from serving.client.device import Device, Update
from tests.client.device_site import Site, change_manifest, next_sequence, serves
from tests.release_pieces import CHANNEL, manifest_of
from tests.unit.test_channel import put_first_version

# Each case: what is put in the way, and the error that it must be.


def sign_by_stranger(site: Site) -> None:
    change_manifest(site, next_sequence, key=make_key())


def strip_signatures(site: Site) -> None:
    envelope = json.loads(site.store.get(CHANNEL).data)
    site.store.put(CHANNEL, json.dumps(envelope | {"signatures": []}).encode())


def edit_payload(site: Site) -> None:
    envelope = json.loads(site.store.get(CHANNEL).data)
    body = b64decode(envelope["payload"]).replace(b'"sequence": 2', b'"sequence": 9')
    assert body != b64decode(envelope["payload"])
    site.store.put(CHANNEL, json.dumps(envelope | {"payload": b64encode(body).decode()}).encode())


def claim_key(site: Site) -> None:
    """The stranger's signature under the id of the trusted key."""
    envelope = json.loads(seal(b64decode(json.loads(site.store.get(CHANNEL).data)["payload"]), [make_key()]).to_json())
    envelope["signatures"][0]["keyid"] = site.key.public.key_id
    site.store.put(CHANNEL, json.dumps(envelope).encode())


def set_key(*path: str, value: Any) -> Callable[[Site], None]:
    def change(manifest: dict[str, Any]) -> None:
        next_sequence(manifest)
        for part in path[:-1]:
            manifest = manifest[part]
        manifest[path[-1]] = value

    return lambda site: change_manifest(site, change)


def blob_of(site: Site, number: int = 1) -> str:
    return f"mobile/blobs/{site.releases[number].mobile_file().sha256}.tflite"


def truncate_blob(site: Site) -> None:
    site.store.put(blob_of(site), site.store.get(blob_of(site)).data[:-100])


def lengthen_blob(site: Site) -> None:
    site.store.put(blob_of(site), site.store.get(blob_of(site)).data + b"x")


def swap_blob(site: Site) -> None:
    """Another model of the same length: the other release's, whose comment differs."""
    other = site.store.get(f"{site.releases[2].folder()}/mobile/model.tflite").data
    assert len(other) == site.releases[1].mobile_file().size
    site.store.put(blob_of(site), other)


def lose_blob(site: Site) -> None:
    site.store.delete(blob_of(site))


def selftest_name(site: Site) -> str:
    return manifest_of(site.store)["mobile"]["selftest"]["blob"]


def damage_selftest(site: Site) -> None:
    name = selftest_name(site)
    site.store.put(name, site.store.get(name).data.replace(b"tolerance", b"tolerancE"))


def other_answers(site: Site) -> None:
    """A self-test that this model does not pass, with its right digest."""
    name = selftest_name(site)
    content = json.loads(site.store.get(name).data)
    content["images"][-1]["probabilities"][0] ^= 0x40
    put_selftest(site, json.dumps(content).encode())


def unknown_selftest(site: Site) -> None:
    put_selftest(site, b'{"schema": "dual.selftest/v2"}')


def put_selftest(site: Site, data: bytes) -> None:
    digest = sha256_bytes(data)
    pointer = {"blob": f"mobile/blobs/{digest}.selftest.json", "sha256": digest, "size": len(data)}
    site.store.put(pointer["blob"], data)  # type: ignore[arg-type]
    set_key("mobile", "selftest", value=pointer)(site)


def other_model(data: bytes) -> Callable[[Site], None]:
    """A file that is what the manifest says, and is no model of the contract."""

    def put(site: Site) -> None:
        digest = sha256_bytes(data)
        site.store.put(f"mobile/blobs/{digest}.tflite", data)
        mobile = manifest_of(site.store)["mobile"] | {"blob": f"mobile/blobs/{digest}.tflite", "sha256": digest, "size": len(data)}
        set_key("mobile", value=mobile)(site)

    return put


def other_labels(site: Site) -> None:
    set_key("mobile", "labels", value=["x", "y", "z"])(site)


ATTACKS: dict[str, tuple[Callable[[Site], None], type[UpdateError], str]] = {
    "signed by a stranger": (sign_by_stranger, UntrustedError, "this device trusts"),
    "signature of a stranger under a known id": (claim_key, UntrustedError, "this device trusts"),
    "no signature": (strip_signatures, UntrustedError, "signed by nobody"),
    "payload edited": (edit_payload, UntrustedError, "this device trusts"),
    "no channel": (lambda site: site.store.put(CHANNEL, b"<html>captive portal</html>"), UntrustedError, "no signed channel"),
    "an empty file": (lambda site: site.store.put(CHANNEL, b""), UntrustedError, "no signed channel"),
    "an endless file": (lambda site: site.store.put(CHANNEL, b" " * (2 << 20)), DamagedError, "more than"),
    "the first version's manifest": (lambda site: put_first_version(site.store), UntrustedError, "no signed channel"),
    "another channel": (set_key("channel", value="beta"), UntrustedError, "channel 'beta'"),
    "another model": (set_key("model", value="cats"), UntrustedError, "model 'cats'"),
    "a format of the future": (set_key("schema", value="dual.channel/v3"), UnsupportedError, "not understood"),
    "another of the same sequence": (lambda site: change_manifest(site, lambda m: m.update(sequence=1)), RollbackError, "sequence 1"),
    "another contract": (set_key("mobile", "contract", "input", "scale", value=0.5), UnsupportedError, "tensors"),
    "a runtime of the future": (set_key("mobile", "minimum_runtime", value="2.99.0"), UnsupportedError, "2.99.0"),
    "a truncated model": (truncate_blob, DamagedError, "bytes"),
    "a lengthened model": (lengthen_blob, DamagedError, "more than"),
    "a swapped model": (swap_blob, DamagedError, "sha256"),
    "a missing model": (lose_blob, DamagedError, "is not there"),
    "a damaged self-test": (damage_selftest, DamagedError, "sha256"),
    "a missing self-test": (lambda site: site.store.delete(selftest_name(site)), DamagedError, "is not there"),
    "a self-test of the future": (unknown_selftest, SelfTestError, "v2"),
    "other answers": (other_answers, SelfTestError, "steps of 1/256"),
    "no model at all": (other_model(b"TFL3 nothing"), SelfTestError, "can't be run"),
    "other labels": (other_labels, SelfTestError, "labels"),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_whatever_is_wrong_is_a_typed_error_and_the_old_version_stays(device: Device, site: Site, case: str) -> None:
    attack, error, text = ATTACKS[case]
    before = device.state()
    site.publish(1)
    attack(site)
    for _ in range(2):
        with pytest.raises(error, match=text) as caught:
            device.update()
        assert type(caught.value) is error
        assert serves(device, site, 0)
    after = device.state()
    assert (after.current, after.installation) == (before.current, before.installation)
    assert list((device._shelf.folder / "models").glob(".*")) == []


def test_what_was_wrong_is_mended_by_the_next_publication(device: Device, site: Site) -> None:
    site.publish(1)
    other_answers(site)
    with pytest.raises(SelfTestError):
        device.update()
    change_manifest(site, lambda manifest: manifest.update(sequence=9, mobile=json.loads(site_version(site, 1))))
    assert device.update() == Update("installed", site.releases[1].id, 9, True)


def site_version(site: Site, number: int) -> str:
    return json.dumps(json.loads(site.store.get(f"mobile/versions/{site.releases[number].id}.json").data)["mobile"])
