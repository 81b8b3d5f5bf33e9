"""What was tampered with is refused in the browser, visibly, and the version in service goes on answering."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.digest import sha256_bytes
from components.publish_mobile.private_key import make_key
from tests.client.device_site import Site, change_manifest, next_sequence
from tests.release_pieces import CHANNEL
from tests.web.sites import running, web_of
from tests.web.visits import give, opened, sure

pytestmark = pytest.mark.browser


def refused(page: Any, kind: str, said: str, goes_on: str) -> None:
    """Look for an update that must not be taken, and see that the old release still answers."""
    page.click("#update")
    page.wait_for_selector("#refusal", state="visible")
    text = page.inner_text("#refusal")
    assert text.startswith(f"Refused ({kind}):"), text
    assert said in text
    assert text.endswith(f"Release {goes_on} goes on answering.")
    assert page.inner_text("#release") == goes_on
    assert give(page, sure()).startswith("The phone decided")


def put_blob(site: Site, change: Callable[[bytes], bytes]) -> None:
    """Publish the second release, and put other bytes where its model lies."""
    site.publish(1)
    blob = json.loads(b64decode(json.loads(site.store.get(CHANNEL).data)["payload"]))["mobile"]["blob"]
    data = site.store.get(blob).data
    site.store.delete(blob)
    site.store.put(blob, change(data))


def spoil_blob(site: Site) -> None:
    put_blob(site, lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:])


def cut_blob(site: Site) -> None:
    put_blob(site, lambda data: data[:-7])


def lengthen_blob(site: Site) -> None:
    put_blob(site, lambda data: data + b"more")


def edit_payload(site: Site) -> None:
    site.publish(1)
    envelope = json.loads(site.store.get(CHANNEL).data)
    edited = b64decode(envelope["payload"]).replace(b'"threshold"', b'"threshald"')
    site.store.put(CHANNEL, json.dumps({**envelope, "payload": b64encode(edited).decode()}).encode())


def wrong_key(site: Site) -> None:
    change_manifest(site, next_sequence, key=make_key())


def lying_selftest(site: Site) -> None:
    """Another model under the manifest's signature, with the golden answers of before."""
    site.publish(1)

    def swap(manifest: dict[str, Any]) -> None:
        next_sequence(manifest)
        selftest = json.loads(site.store.get(manifest["mobile"]["selftest"]["blob"]).data)
        for each in selftest["images"]:
            each["probabilities"] = each["probabilities"][::-1]
        data = json.dumps(selftest).encode()
        digest = sha256_bytes(data)
        blob = f"mobile/blobs/{digest}.selftest.json"
        site.store.put(blob, data)
        manifest["mobile"]["selftest"] = {"blob": blob, "sha256": digest, "size": len(data)}

    change_manifest(site, swap)


def future(site: Site) -> None:
    def newer(manifest: dict[str, Any]) -> None:
        next_sequence(manifest)
        manifest["mobile"]["minimum_runtime"] = "99.0.0"
        manifest["mobile"]["sha256"] = "0" * 64

    change_manifest(site, newer)


@pytest.mark.parametrize(
    ("attack", "kind", "said"),
    [
        (spoil_blob, "damaged", "the manifest says"),
        (cut_blob, "damaged", "bytes, the manifest says"),
        (lengthen_blob, "damaged", "bytes, the manifest says"),
        (edit_payload, "untrusted", "this page trusts"),
        (wrong_key, "untrusted", "this page trusts"),
        (lying_selftest, "self-test", "Golden picture 0"),
        (future, "unsupported", "needs TFLite 99.0.0"),
    ],
)
def test_what_was_tampered_with_is_refused_and_the_old_one_serves(
    browser: Any, own_site: Site, vendor: Path, attack: Callable[[Site], None], kind: str, said: str
) -> None:
    with running(web_of(own_site, vendor)) as address, opened(browser, address) as (page, _):
        first = own_site.releases[0].id
        assert page.inner_text("#release") == first
        attack(own_site)
        refused(page, kind, said, first)


def test_an_older_manifest_is_refused_after_a_newer_one_was_seen(browser: Any, own_site: Site, vendor: Path) -> None:
    old = own_site.store.get(CHANNEL).data
    own_site.publish(1)
    with running(web_of(own_site, vendor)) as address, opened(browser, address) as (page, _):
        second = own_site.releases[1].id
        assert page.inner_text("#release") == second
        own_site.store.put(CHANNEL, old)
        refused(page, "rollback", "has sequence 1, and this browser has seen 2", second)


def test_a_first_visit_to_a_spoiled_channel_has_no_model(browser: Any, own_site: Site, vendor: Path) -> None:
    wrong_key(own_site)
    with running(web_of(own_site, vendor)) as address, opened(browser, address) as (page, _):
        assert page.inner_text("#refusal").endswith("There is no model here yet.")
        assert give(page, sure()) == "There is no model here yet."
