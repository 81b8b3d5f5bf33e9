"""`dual web` in a real browser: what is published is verified and answers, alone, with the cloud, and without a network."""

import json
import re
import threading
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.stores import open_store
from serving.client.layered import LayeredModel
from tests.client.device_site import Site, change_manifest, next_sequence
from tests.conftest import tiny_jpeg
from tests.release_pieces import CHANNEL, LABELS, SIDE
from tests.rollout.web import Asked, Reply, reply
from tests.web.sites import GOOD, Cloud, payload, running, web_of
from tests.web.visits import answered, give, opened, ready, sure, unsure

pytestmark = pytest.mark.browser


def test_the_published_model_answers_as_in_python(browser: Any, published: Site, vendor: Path, tmp_path: Path) -> None:
    device = published.device(tmp_path, tester=True)
    device.update()
    python = LayeredModel(device.open(), None)
    with running(web_of(published, vendor)) as address, opened(browser, address) as (page, _):
        assert page.inner_text("#release") == published.releases[0].id
        assert "Golden pictures: answered as its publisher measured" in page.inner_text("#checks")
        for image in (sure(), tiny_jpeg(0, 9), tiny_jpeg(2, 3), unsure()):
            why = give(page, image)
            expected = python.classify(image)
            assert page.inner_text("#verdict") == f"{expected.label} {100 * expected.score:.1f} %"
            assert why == f"The phone decided: {expected.why}."


def test_golden_images_give_the_same_integers(browser: Any, published: Site, vendor: Path) -> None:
    manifest = json.loads(b64decode(json.loads(published.store.get(CHANNEL).data)["payload"]))
    golden = json.loads(published.store.get(manifest["mobile"]["selftest"]["blob"]).data)
    script = """async (mobile) => {
      const { Model } = await import("/page/model.js");
      const { decode } = await import("/page/pixels.js");
      const { fromBase64, fromUtf8 } = await import("/page/bytes.js");
      const get = async (name) => new Uint8Array(await (await fetch(`/store/${name}`)).arrayBuffer());
      const model = await Model.load(await get(mobile.blob), mobile, null);
      const test = JSON.parse(fromUtf8(await get(mobile.selftest.blob)));
      const found = [];
      for (const each of test.images) found.push([...(await model.run((await decode(fromBase64(each.pixels))).data))]);
      return found;
    }"""
    with running(web_of(published, vendor)) as address, opened(browser, address) as (page, _):
        assert page.evaluate(script, manifest["mobile"]) == [each["probabilities"] for each in golden["images"]]
    assert len(golden["images"]) > 2


def test_the_cloud_is_asked_when_the_phone_is_unsure_and_both_are_shown(browser: Any, published: Site, vendor: Path) -> None:
    cloud = Cloud()
    with cloud.serve() as server, running(web_of(published, vendor, server.url)) as address, opened(browser, address) as (page, _):
        assert give(page, sure()).startswith("The phone decided: its confidence 0.64 is at least 0.6")
        assert [asked.path for asked in server.asked] == []
        assert re.fullmatch(r"The cloud decided: its confidence 0\.\d\d is below 0\.6\.", give(page, unsure()))
        assert [asked.path for asked in server.asked] == ["/v1/models/classifier:predict"]
        assert b64decode(payload(server.asked[0])) == unsure()
        assert page.inner_text("#verdict") == "tulips 97.0 %"
        assert page.locator("#cloud .decided").is_visible()
        assert not page.locator("#mobile .decided").is_visible()
        facts = page.inner_text("#cloud dl")
        assert re.search(r"Time\s+[\d.]+ ms\s+Sent\s+[\d.]+ k?B", facts), facts
        assert re.search(r"Time\s+[\d.]+ ms\s+Sent\s+0 B\s+Model\s+[\d.]+ k?B", page.inner_text("#mobile dl"))


def test_the_cloud_is_asked_on_request(browser: Any, published: Site, vendor: Path) -> None:
    with Cloud().serve() as server, running(web_of(published, vendor, server.url)) as address, opened(browser, address) as (page, _):
        assert page.locator("#ask").is_disabled()
        before = give(page, sure())
        page.click("#ask")
        assert answered(page, before) == "The cloud decided: the cloud was asked for."


def stalls(released: threading.Event) -> Callable[[Asked], Reply]:
    def answer(_: Asked) -> Reply:
        released.wait(30)
        return reply(GOOD)

    return answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: reply({"error": "no"}, 503), "the cloud refuses (503)"),
        (lambda _: Reply("<html>"), "the cloud can't be reached"),
        (lambda _: reply({"predictions": []}), "the cloud gives an answer that can't be used"),
        (
            lambda _: reply({"predictions": [{"label": "orchid", "score": 0.9}]}),
            "the cloud answers 'orchid', which this page does not know",
        ),
        (lambda _: Reply(cut=True), "the cloud can't be reached"),
    ],
)
def test_whatever_the_cloud_does_the_phone_answers(
    browser: Any, published: Site, vendor: Path, answer: Callable[[Asked], Reply], said: str
) -> None:
    with Cloud(answer).serve() as server, running(web_of(published, vendor, server.url)) as address, opened(browser, address) as (page, _):
        why = give(page, unsure())
        assert why.startswith("The phone decided: its confidence")
        assert why.endswith(f", but {said}.")
        assert page.locator("#mobile .decided").is_visible()


def test_a_cloud_that_is_slow_is_not_waited_for(browser: Any, published: Site, vendor: Path) -> None:
    released = threading.Event()
    cloud = Cloud(stalls(released))
    with (
        cloud.serve() as server,
        running(web_of(published, vendor, server.url, timeout=0.3)) as address,
        opened(browser, address) as (page, _),
    ):
        assert give(page, unsure()).endswith("but the cloud gave no answer within 0.3 s.")
        released.set()


def test_the_page_itself_stops_waiting_whatever_lies_between(browser: Any, published: Site, vendor: Path) -> None:
    with running(web_of(published, vendor, "http://127.0.0.1:9", timeout=0.3)) as address, opened(browser, address) as (page, _):
        page.route("**/cloud/predict", lambda _: None)
        assert give(page, unsure()).endswith("but the cloud gave no answer within 0.3 s.")
        page.unroute_all(behavior="ignoreErrors")


def test_without_a_network_the_page_opens_and_answers(browser: Any, published: Site, vendor: Path) -> None:
    with Cloud().serve() as server, running(web_of(published, vendor, server.url)) as address:
        context = browser.new_context()
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(f"{address}/")
        page.wait_for_selector("html[data-offline=yes]", timeout=120_000)
        context.set_offline(True)
        page.reload()
        ready(page)
        assert page.inner_text("#network").startswith("off")
        assert "Not updated: The store can't be reached." in page.inner_text("#refusal")
        assert give(page, sure()).startswith("The phone decided")
        assert give(page, unsure()).endswith("but there is no network.")
        assert server.asked == []
        context.set_offline(False)
        page.click("#update")
        page.wait_for_selector("#refusal", state="hidden")
        context.close()


def test_a_good_update_is_taken_and_survives_a_reload(browser: Any, own_site: Site, vendor: Path) -> None:
    with running(web_of(own_site, vendor)) as address, opened(browser, address) as (page, _):
        own_site.publish(1)
        page.click("#update")
        page.wait_for_function("id => document.getElementById('release').textContent === id", arg=own_site.releases[1].id)
        page.reload()
        ready(page)
        assert page.inner_text("#release") == own_site.releases[1].id
        kept = """async () => {
          const { Shelf } = await import("/page/shelf.js");
          const state = await (await Shelf.open()).read("stable");
          return [state.current.release, state.previous.release, state.sequence];
        }"""
        assert page.evaluate(kept) == [own_site.releases[1].id, own_site.releases[0].id, 2]


def test_outside_of_the_staged_percentage_the_fallback_answers(browser: Any, own_site: Site, vendor: Path) -> None:
    own_site.publish(1, basis_points=0)
    with running(web_of(own_site, vendor)) as address, opened(browser, address) as (page, _):
        assert page.inner_text("#release") == own_site.releases[0].id
        assert "what everybody had before" in page.inner_text("#checks")
    with running(web_of(own_site, vendor, tester=True)) as address, opened(browser, address) as (page, _):
        assert page.inner_text("#release") == own_site.releases[1].id


def test_a_paused_candidate_is_taken_by_nobody_new(browser: Any, own_site: Site, vendor: Path) -> None:
    def pause(manifest: dict[str, Any]) -> None:
        next_sequence(manifest)
        manifest["staging"] |= {"basis_points": 10_000, "paused": True}

    with running(web_of(own_site, vendor)) as address, opened(browser, address) as (page, _):
        own_site.publish(1, basis_points=5000)
        change_manifest(own_site, pause)
        page.click("#update")
        page.wait_for_function("() => document.getElementById('channel').textContent === 'stable, sequence 3'")
        assert page.inner_text("#release") == own_site.releases[0].id


def test_what_is_no_image_is_said(browser: Any, published: Site, vendor: Path) -> None:
    with running(web_of(published, vendor)) as address, opened(browser, address) as (page, _):
        assert give(page, b"GIF89a nothing", "a.gif") == "This is not a JPEG or PNG image."
        assert give(page, sure()).startswith("The phone decided")


def test_dropped_and_camera_images_are_taken(browser: Any, published: Site, vendor: Path) -> None:
    with running(web_of(published, vendor)) as address, opened(browser, address, permissions=["camera"]) as (page, _):
        before = page.inner_text("#why")
        drop = """bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(bytes)], "dropped.jpg", { type: "image/jpeg" }));
          document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
        page.evaluate(drop, list(sure()))
        assert answered(page, before).startswith("The phone decided")
        assert page.get_attribute("#preview", "aria-label") == "Your image: dropped.jpg"
        page.click("#camera")
        page.wait_for_selector("#video", state="visible")
        page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
        page.click("#shoot")
        page.wait_for_function("() => document.getElementById('preview').ariaLabel === 'Your image: from the camera'")
        assert page.locator("#video").is_hidden()
        assert page.inner_text("#camera") == "Use the camera"


def test_published_text_is_never_markup(browser: Any, own_site: Site, vendor: Path) -> None:
    def hostile(asked: Asked) -> Reply:
        del asked
        return reply({"predictions": [{"label": "<img src=x onerror=alert(1)>", "score": 1.0}]})

    with Cloud(hostile).serve() as server, running(web_of(own_site, vendor, server.url)) as address, opened(browser, address) as (page, _):
        assert "<img src=x onerror=alert(1)>" in give(page, unsure())
        assert page.locator("#answer img").count() == 0


def test_the_site_of_these_tests_is_what_they_think(published: Site) -> None:
    assert LABELS == ["daisy", "roses", "tulips"]
    assert SIDE == 32
    assert open_store(published.store.uri).exists(CHANNEL)
