"""`dual web` in a real browser: what is published is verified and answers, alone, with the cloud, and without a network."""

import io
import json
import re
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.core.digest import sha256_bytes
from components.core.stores import open_store
from components.publish_mobile.private_key import make_key
from serving.client.layered import LayeredModel
from tests.client.device_site import Site, change_manifest, make_site, next_sequence
from tests.conftest import tiny_jpeg
from tests.release_pieces import CHANNEL, LABELS, SIDE
from tests.rollout.web import Asked, Reply, reply
from tests.web.sites import GOOD, Cloud, Seen, payload, running, web_of

pytestmark = pytest.mark.browser


@pytest.fixture
def published(site: Site) -> Site:
    """The site, its first release being the one that counts."""
    site.publish(0)
    return site


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[tuple[Any, Seen]]:
    """The page in a browser of its own, when it has looked for an update."""
    context = browser.new_context(**options)
    page, seen = context.new_page(), Seen()
    context.on("request", lambda request: seen.requests.append(request.url))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.goto(f"{address}/")
    ready(page)
    yield page, seen
    context.close()
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith((address, "blob:"))] == []


def ready(page: Any) -> None:
    page.wait_for_selector("html[data-ready=yes]", timeout=30_000)


def give(page: Any, image: bytes, name: str = "image.jpg") -> str:
    """Choose a file, and what is said of it when the answer is there."""
    before = page.inner_text("#why")
    page.set_input_files("#choose", {"name": name, "mimeType": "image/jpeg", "buffer": image})
    return answered(page, before)


def answered(page: Any, before: str) -> str:
    script = "before => document.getElementById('answer').ariaBusy !== 'true' && document.getElementById('why').textContent !== before"
    page.wait_for_function(script, arg=before)
    return page.inner_text("#why")


def sure() -> bytes:
    """An image of which the phone's model is sure (0.64, the policy asks below 0.6)."""
    return tiny_jpeg(1, 5)


def unsure() -> bytes:
    """One of which it is not."""
    buffer = io.BytesIO()
    Image.new("RGB", (60, 44), (120, 121, 119)).save(buffer, "PNG")
    return buffer.getvalue()


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
        page = context.new_page()
        page.goto(f"{address}/")
        page.wait_for_selector("html[data-offline=yes]", timeout=30_000)
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


@pytest.fixture
def own_site(tmp_path: Path) -> Site:
    """A site of this test alone, for tests that spoil it."""
    site = make_site(tmp_path, 2)
    site.publish(0)
    return site


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


def test_a_first_visit_to_a_spoiled_channel_has_no_model(browser: Any, own_site: Site, vendor: Path) -> None:
    wrong_key(own_site)
    with running(web_of(own_site, vendor)) as address, opened(browser, address) as (page, _):
        assert page.inner_text("#refusal").endswith("There is no model here yet.")
        assert give(page, sure()) == "There is no model here yet."


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


# The file input is not seen; its label shows that it has the focus.
OUTLINE = """() => {
  const focused = document.activeElement;
  return getComputedStyle(focused.id === "choose" ? document.querySelector(".button") : focused).outlineStyle;
}"""


def test_everything_works_with_the_keyboard_alone(browser: Any, published: Site, vendor: Path) -> None:
    with Cloud().serve() as server, running(web_of(published, vendor, server.url)) as address, opened(browser, address) as (page, _):
        give(page, sure())
        page.evaluate("document.activeElement.blur()")
        walked = []
        for _ in range(5):
            page.keyboard.press("Tab")
            walked.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
            assert page.evaluate(OUTLINE) != "none", walked[-1]
        assert walked[:5] == ["skip", "choose", "camera", "ask", "update"]
        before = page.inner_text("#why")
        page.focus("#ask")
        page.keyboard.press("Enter")
        assert answered(page, before).startswith("The cloud decided")


CONTRAST = """() => {
  const channel = (value) => ((value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const texts = [...document.body.querySelectorAll("*")].filter((node) => node.checkVisibility() && !node.disabled &&
    [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
  return texts.map((node) => {
    const pair = [luminance(parse(getComputedStyle(node).color)), luminance(behind(node))].sort((a, b) => b - a);
    return [node.id || node.className || node.tagName, (pair[0] + 0.05) / (pair[1] + 0.05)];
  }).filter(([, ratio]) => ratio < 4.5);
}"""


CONTROLS = """() => {
  const seen = (selector) => [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility());
  const named = (each) => each.ariaLabel || each.labels?.length || each.textContent.trim();
  return {
    unnamed: seen("button, input, canvas, video").filter((each) => !named(each)).length,
    small: seen("button, .button").filter((each) => each.getBoundingClientRect().height < 44).length,
  };
}"""


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (360, "light"), (360, "dark")])
def test_it_is_readable_and_fits(browser: Any, published: Site, vendor: Path, tmp_path: Path, width: int, scheme: str) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with (
        Cloud().serve() as server,
        running(web_of(published, vendor, server.url)) as address,
        opened(browser, address, **options) as (page, _),
    ):
        give(page, unsure())
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate(CONTROLS) == {"unnamed": 0, "small": 0}
        assert page.evaluate("document.documentElement.lang") == "en"
        assert page.get_attribute("#answer", "aria-live") == "polite"
        assert len(page.screenshot(path=tmp_path / "page.png", full_page=True)) > 10_000


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
