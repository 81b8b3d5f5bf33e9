"""What the page's server hands out, and what it does not."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.web.server import MAX_ANSWER, MAX_IMAGE, PAGE
from tests.client.device_site import Site
from tests.release_pieces import CHANNEL, manifest_of
from tests.rollout.web import Asked, Reply, reply
from tests.web.sites import GOOD, Cloud, running, web_of


@pytest.fixture(scope="module")
def litert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the place of LiteRT.js."""
    folder = tmp_path_factory.mktemp("litert")
    (folder / "core").mkdir()
    (folder / "core" / "index.js").write_text("export {};")
    (folder / "vendor.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def client(site: Site, litert: Path) -> Iterator[httpx.Client]:
    site.publish(0)
    with running(web_of(site, litert)) as address, httpx.Client(base_url=address, trust_env=False) as client:
        yield client


def test_every_answer_forbids_what_the_page_does_not_need(client: httpx.Client) -> None:
    for path in (
        "/",
        "/page/page.js",
        "/vendor/core/index.js",
        "/settings.json",
        "/sw.js",
        f"/store/{CHANNEL}",
        "/nothing",
        "/page/../server.py",
    ):
        headers = client.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert policy["connect-src"] == policy["style-src"] == "'self'"
        assert not re.search(r"unsafe-inline|https?:|\*|'unsafe-eval'", headers["content-security-policy"])
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert (headers["cross-origin-opener-policy"], headers["cross-origin-embedder-policy"]) == ("same-origin", "require-corp")


def test_the_page_and_all_that_it_names_are_there(client: httpx.Client) -> None:
    page = client.get("/").text
    named = set(re.findall(r'(?:href|src)="(/[^"#]*)"', page))
    shell = set(re.findall(r'"(\w+\.(?:js|css))"', client.get("/sw.js").text))
    assert {path.name for path in PAGE.iterdir()} - {"index.html", "sw.js", "icon.svg"} == shell
    for path in named | {f"/page/{name}" for name in shell}:
        assert client.get(path).status_code == 200, path
    kinds = {
        name: client.get(name).headers["content-type"].partition(";")[0] for name in ("/", "/sw.js", "/page/page.js", "/page/style.css")
    }
    assert kinds == {"/": "text/html", "/sw.js": "text/javascript", "/page/page.js": "text/javascript", "/page/style.css": "text/css"}


def test_nothing_in_the_page_comes_from_elsewhere_or_is_inline() -> None:
    for path in PAGE.iterdir():
        text = path.read_text()
        assert not re.search(r"""["'(]https?://(?!www\.w3\.org/2000/svg)""", text), path.name
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page)
    assert "innerHTML" not in "".join(path.read_text() for path in PAGE.glob("*.js"))


def test_the_settings_hold_what_the_page_is_to_trust(client: httpx.Client, site: Site) -> None:
    assert client.get("/settings.json").json() == {
        "schema": "dual.web/v1",
        "channel": "stable",
        "model": "classifier",
        "tester": False,
        "store": "store/",
        "keys": [{"key_id": site.key.public.key_id, "public_key": site.key.public.public_key}],
        "cloud": None,
        "max_blob": 256 << 20,
        "max_image": MAX_IMAGE,
    }


def test_the_channel_and_its_blobs_come_as_they_lie_there(client: httpx.Client, site: Site) -> None:
    channel, mobile = client.get(f"/store/{CHANNEL}"), manifest_of(site.store)["mobile"]
    assert channel.content == site.store.get(CHANNEL).data
    assert channel.headers["cache-control"] == "no-cache"
    for pointer in (mobile, mobile["selftest"]):
        blob = client.get(f"/store/{pointer['blob']}")
        assert blob.content == site.store.get(pointer["blob"]).data
        assert "immutable" in blob.headers["cache-control"]
    assert client.head(f"/store/{CHANNEL}").content == b""


@pytest.mark.parametrize(
    "name",
    [
        "releases/",
        "releases/{release}/release.json",
        "channels/beta.json",
        "history/0000000001.json",
        "../secret",
        "channels/%2e%2e/channels/stable.json",
        "%2e%2e/secret",
        "mobile/blobs/../../releases/x",
        "mobile/blobs/" + "0" * 64 + ".txt",
        "mobile/blobs/" + "0" * 63 + ".tflite",
        "",
        "mobile/blobs/",
    ],
)
def test_what_is_not_published_is_never_asked_for(client: httpx.Client, site: Site, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(site.store, "copy_file", lambda name, *_, **__: asked.append(name))
    answer = client.get(f"/store/{name.format(release=site.releases[0].id)}")
    assert answer.status_code == 404
    assert asked == []


def test_a_missing_blob_is_404_and_a_store_that_refuses_502(client: httpx.Client, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.core.errors import DualError

    assert client.get(f"/store/mobile/blobs/{'0' * 64}.tflite").status_code == 404

    def refuse(*_: object, **__: object) -> None:
        raise DualError("refuses (503)", where="bucket", fix="Try again")

    monkeypatch.setattr(site.store, "copy_file", refuse)
    answer = client.get(f"/store/{CHANNEL}")
    assert (answer.status_code, answer.json()["error"]["what"]) == (502, "refuses (503)")


@pytest.mark.parametrize(
    "path", ["/page/../server.py", "/page/%2e%2e/server.py", "/page/..%2fvendor.py", "/vendor/../../etc/passwd", "/page/", "/vendor/"]
)
def test_nothing_beside_the_page_is_served(client: httpx.Client, path: str) -> None:
    connection = client.build_request("GET", client.base_url)
    connection.url = connection.url.copy_with(raw_path=path.encode())
    assert client.send(connection).status_code == 404


def test_only_what_is_listed_may_be_done(client: httpx.Client) -> None:
    for path in ("/", "/settings.json", f"/store/{CHANNEL}", "/page/page.js"):
        for method in ("POST", "PUT", "DELETE"):
            assert client.request(method, path).status_code == 405, (method, path)
    assert client.get("/cloud/predict").status_code == 405


def test_without_a_server_the_cloud_is_404(client: httpx.Client) -> None:
    answer = client.post("/cloud/predict", json={"instances": []})
    assert (answer.status_code, answer.json()["error"]["what"]) == (404, "there is no cloud model to ask")


def test_a_question_reaches_one_path_of_the_server_as_it_is(site: Site, litert: Path) -> None:
    with Cloud().serve() as server, running(web_of(site, litert, f"{server.url}/", name="flowers")) as address:
        body = json.dumps({"instances": [{"b64": "aGVsbG8="}]})
        answer = httpx.post(f"{address}/cloud/predict", content=body, headers={"cookie": "a=b", "authorization": "secret"}, trust_env=False)
        assert answer.json() == GOOD
        (asked,) = server.asked
        assert (asked.method, asked.path, asked.body.decode()) == ("POST", "/v1/models/flowers:predict", body)
        assert not {"Cookie", "Authorization", "cookie", "authorization"} & set(asked.headers)


@pytest.mark.parametrize(("said", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)])
def test_other_sites_may_not_ask_the_cloud(site: Site, litert: Path, said: str, status: int) -> None:
    with Cloud().serve() as server, running(web_of(site, litert, server.url)) as address:
        answer = httpx.post(f"{address}/cloud/predict", json={}, headers={"sec-fetch-site": said}, trust_env=False)
        assert (answer.status_code, len(server.asked)) == (status, int(status == 200))


def test_an_image_too_large_is_refused_and_not_passed_on(site: Site, litert: Path) -> None:
    with Cloud().serve() as server, running(web_of(site, litert, server.url)) as address:
        answer = httpx.post(f"{address}/cloud/predict", content=b"x" * (2 * MAX_IMAGE), trust_env=False)
        assert answer.status_code == 413
        assert server.asked == []


def test_a_server_that_refuses_is_passed_on_and_one_that_is_gone_said(site: Site, litert: Path) -> None:
    cloud = Cloud(lambda _: reply({"error": "no such model"}, 404))
    with cloud.serve() as server, running(web_of(site, litert, server.url)) as address:
        answer = httpx.post(f"{address}/cloud/predict", json={}, trust_env=False)
        assert (answer.status_code, answer.json()) == (404, {"error": "no such model"})
        server.answer = lambda _: Reply(cut=True)
        assert httpx.post(f"{address}/cloud/predict", json={}, trust_env=False).status_code == 502
    with running(web_of(site, litert, "http://127.0.0.1:9")) as address:
        gone = httpx.post(f"{address}/cloud/predict", json={}, trust_env=False)
        assert (gone.status_code, gone.json()["error"]["what"]) == (502, "can't be reached (ConnectError)")


def test_a_server_that_is_slow_is_504_in_time(site: Site, litert: Path) -> None:
    released = threading.Event()

    def stall(_: Asked) -> Reply:
        released.wait(20)
        return reply(GOOD)

    with Cloud(stall).serve() as server, running(web_of(site, litert, server.url, timeout=0.2)) as address:
        answer = httpx.post(f"{address}/cloud/predict", json={}, trust_env=False, timeout=10)
        released.set()
        assert (answer.status_code, answer.json()["error"]["what"]) == (504, "gave no answer within 0.2 s")


def test_a_server_that_drips_is_504_in_time(site: Site, litert: Path) -> None:
    dripping = Reply(json.dumps(GOOD), drip=0.1)
    with Cloud(lambda _: dripping).serve() as server, running(web_of(site, litert, server.url, timeout=0.4)) as address:
        answer = httpx.post(f"{address}/cloud/predict", json={}, trust_env=False, timeout=30)
        assert (answer.status_code, answer.json()["error"]["what"]) == (504, "gave no answer within 0.4 s")


def test_a_server_that_answers_without_end_is_refused(site: Site, litert: Path) -> None:
    endless = Reply("x" * (MAX_ANSWER + 1))
    with Cloud(lambda _: endless).serve() as server, running(web_of(site, litert, server.url, timeout=20)) as address:
        answer = httpx.post(f"{address}/cloud/predict", json={}, trust_env=False, timeout=30)
        assert (answer.status_code, answer.json()["error"]["what"]) == (502, "answers with more than 1 MiB")


def test_an_image_that_does_not_come_is_given_up(site: Site, litert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.web.server.UPLOAD_SECONDS", 0.2)
    with Cloud().serve() as server, running(web_of(site, litert, server.url)) as address:
        url = httpx.URL(address)
        with socket.create_connection((url.host, url.port or 0), timeout=20) as stalled:
            stalled.sendall(b"POST /cloud/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome of it")
            assert stalled.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert server.asked == []
