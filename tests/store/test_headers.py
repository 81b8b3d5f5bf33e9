"""What caches and apps are told: channels are asked for anew, blobs stay for ever; Firebase's URLs, rules and CORS fit the names."""

import json
import re
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from components.core.download import Patience
from components.core.errors import MissingObjectError, UsageError
from components.core.stores import Store, open_store
from components.core.stores.firebase import FirebaseStore, download_url
from components.core.stores.headers import cache_control, content_type
from components.publish_mobile.version import blob_name
from tests.conftest import ROOT
from tests.store import fake_gcs, fake_s3
from tests.store.conftest import BUCKET, Opener
from tests.store.test_http import Plan
from tests.store.test_http import plan as plan  # noqa: PLC0414 - a fixture

CHANNEL, BLOB = "channels/stable.json", f"mobile/blobs/{'0' * 64}.tflite"
FOREVER = "public, max-age=31536000, immutable"


def publish(store: Store) -> None:
    """Every kind of write, as publishers do it."""
    store.put_if_absent(BLOB, b"model")
    store.put("runs/a/report.html", b"<p>")
    store.swap(CHANNEL, b"{}", None)


def test_names_alone_decide() -> None:
    assert cache_control(CHANNEL) == "no-cache, max-age=0"
    assert cache_control(BLOB) == cache_control("mobile/versions/0123456789ab.json") == FOREVER
    assert [cache_control(name) for name in ("mobile/collection.json", "history/00000001.json", "rollouts/cloud.json")] == [
        "no-cache, max-age=0"
    ] * 3
    assert [content_type(name) for name in (CHANNEL, BLOB, "a/b.png", "x")] == [
        "application/json",
        "application/octet-stream",
        "image/png",
        "application/octet-stream",
    ]


def test_cloud_storage_is_told(gcs_bucket: fake_gcs.Bucket, gcs_opener: Opener) -> None:
    publish(gcs_opener())
    said = {name.removeprefix("team/flowers/"): headers for name, headers in gcs_bucket.headers.items()}
    check(said)


def test_s3_is_told(s3_bucket: fake_s3.Bucket, s3_opener: Opener) -> None:
    publish(s3_opener())
    check({key.split("team/flowers/")[1]: headers for key, headers in s3_bucket.headers.items()})


def check(said: dict[str, dict[str, str]]) -> None:
    assert said[CHANNEL] == {"Cache-Control": "no-cache, max-age=0", "Content-Type": "application/json"}
    assert said[BLOB] == {"Cache-Control": FOREVER, "Content-Type": "application/octet-stream"}
    assert said["runs/a/report.html"]["Content-Type"].startswith("text/html; charset=")


def test_fake_gcs_server_keeps_and_sends_them(fake_gcs_server: str, fake_gcs_server_opener: Opener) -> None:
    store = fake_gcs_server_opener()
    publish(store)
    prefix = store.uri.removeprefix(f"gs://{BUCKET}/")
    for name, expected in ((CHANNEL, "no-cache, max-age=0"), (BLOB, FOREVER)):
        found = httpx.get(f"{fake_gcs_server}/storage/v1/b/{BUCKET}/o/{quote(f'{prefix}/{name}', safe='')}").json()
        assert found["cacheControl"] == expected


def test_http_readers_ask_caches_for_a_fresh_channel_and_accept_any_blob(plan: Plan) -> None:
    store = open_store(f"{plan.address}/store")
    for name in (CHANNEL, BLOB):
        plan.objects[f"/store/{name}"] = b"{}"
        store.get(name)
    assert plan.caching == {f"/store/{CHANNEL}": "no-cache", f"/store/{BLOB}": None}


@pytest.fixture
def firebase(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> FirebaseStore:
    monkeypatch.setenv("FIREBASE_STORAGE_EMULATOR_HOST", plan.address.removeprefix("http://"))
    return FirebaseStore("app.appspot.com", "team/flowers", Patience(attempts=3, first_wait=0.01, timeout=2.0))


def test_downloads_go_by_firebases_urls(plan: Plan, firebase: FirebaseStore, tmp_path: Path) -> None:
    path = "/v0/b/app.appspot.com/o/team%2Fflowers%2Fchannels%2Fstable.json?alt=media"
    assert download_url("app.appspot.com", "team/flowers/channels/stable.json") == plan.address + path
    plan.objects["/v0/b/app.appspot.com/o/team/flowers/channels/stable.json?alt=media"] = b"{}"
    assert firebase.get(CHANNEL).data == b"{}"
    firebase.copy_file(CHANNEL, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"{}"
    assert {asked[1] for asked in plan.asked} == {path}
    assert firebase.exists(CHANNEL)
    assert not firebase.exists(BLOB)
    with pytest.raises(MissingObjectError, match=r"firebase://app\.appspot\.com/team/flowers/mobile/blobs"):
        firebase.get(BLOB)


def test_firebase_is_read_only_and_takes_a_token(firebase: FirebaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="can only be read"):
        firebase.put(CHANNEL, b"{}")
    assert open_store("firebase://app.appspot.com/team").uri == "firebase://app.appspot.com/team"
    with pytest.raises(UsageError, match="is not a store"):
        open_store("firebase://")
    assert firebase._extra_headers() == {}
    monkeypatch.setenv("DUAL_FIREBASE_TOKEN", "abc")
    assert firebase._extra_headers() == {"Authorization": "Firebase abc"}


def test_the_rules_allow_what_is_published_and_nothing_beside() -> None:
    rules = (ROOT / "manifests" / "firebase" / "storage.rules").read_text()
    channel, blob, *_ = re.findall(r"matches\('([^']+)'\)", rules)
    assert re.fullmatch(channel, "stable.json")
    assert not re.fullmatch(channel, "stable.json.bak")
    digest = "0123456789abcdef" * 4
    for kind in ("tflite", "selftest.json"):
        assert re.fullmatch(blob, blob_name(digest, kind).rpartition("/")[2])
    assert not re.fullmatch(blob, "x" + digest + ".tflite")
    assert "allow read, write: if false;" in rules
    assert not re.search(r"allow [^:;]*(list|write|create|update|delete|read)[^:;]*: if (?!false)", rules)


def test_cors_lets_pages_read_and_nothing_else() -> None:
    (entry,) = json.loads((ROOT / "manifests" / "firebase" / "cors.json").read_text())
    assert set(entry["method"]) == {"GET", "HEAD"}
    assert "*" not in entry["origin"]
