"""The page for everybody: with the keyboard alone, readable in both schemes, on a phone's width."""

from pathlib import Path
from typing import Any

import pytest

from tests.client.device_site import Site
from tests.web.sites import Cloud, running, web_of
from tests.web.visits import answered, give, opened, sure, unsure

pytestmark = pytest.mark.browser


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
