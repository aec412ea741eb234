"""A report in a real browser: it loads nothing, runs nothing but its own switch, fits a phone, can be read and heard.

Chromium is looked for in PATH, under the names that its packages give it. Without it, or without Playwright, these
tests are skipped, and what `tests/reports.py` checks of every page stands in their place.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clip_mixtures
import mixtures
import pytest
from lake_builder import BROKEN, COPY, SHORT, Page, commit, pages
from reports import ATTACK
from trained import commit_model, steps
from waiting import until

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.orchestration.report.page import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
HOSTILE = Page(f"https://example.org/{ATTACK}{'W' * 3000}", f"quality.{ATTACK}", ATTACK)

CONTRAST = """
() => {
  const channel = x => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parse(c).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (parse(c)[3] !== 0 && c.startsWith("rgb(")) return c; } return "rgb(255, 255, 255)"; };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest("script")) continue;
    const style = getComputedStyle(e), ink = e.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push([e.outerHTML.slice(0, 99), ink, ground(e), (a + 0.05) / (b + 0.05)]);
  }
  return bad;
}
"""
"""Elements with text of their own whose contrast to what is behind them is below 4.5 to 1 (WCAG 2.2, 1.4.3)."""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of hostile records, clips and a model."""
    folder = tmp_path_factory.mktemp("browser")
    store: Store = open_store(str(folder / "lake"))
    commit(store, "web", pages(20, p2=SHORT, p3=HOSTILE, p5=BROKEN, p7=COPY, p9=Page(HOSTILE.url + "kept")))
    clip_mixtures.spoken(store, folder / "clips", [(1.2, 16_000)] * 3)
    mixtures.tokenizer(store, "web@v1")
    commit_model(store, "nano", steps([4.0, 3.0, 2.5, 2.0, 1.5], since=2))
    return write_report(store, ["web", "speech", "nano"], folder / "report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Opened]:
    """Opens the page in a window of a width, light or dark. It has to have asked for nothing, and to have had no error
    and no breach of its policy, when the test is over."""
    contexts, requests, errors = [], list[str](), list[str]()

    def open_page(width: int = 1400, colours: str = "light", script: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=colours, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_file.as_uri())
        return page

    yield open_page
    assert {url for url in requests if not url.startswith("data:")} == {page_file.as_uri()}
    assert errors == []
    for context in contexts:
        context.close()


def test_nothing_of_a_record_runs(opened: Opened) -> None:
    page = opened()
    assert page.evaluate("[typeof window.hacked, document.scripts.length, document.images.length]")[:2] == [
        "undefined",
        1,
    ]
    assert ATTACK[:30] in page.inner_text("body")


@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_fits_its_window(opened: Opened, width: int) -> None:
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = (
        "els => els.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 99))"
    )
    assert page.eval_on_selector_all("h1, h2, h3, p, figure, pre, img, audio, table, dl", outside) == []


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_text_can_be_read(opened: Opened, width: int, colours: str) -> None:
    assert opened(width, colours).evaluate(CONTRAST) == []


def test_colours_follow_the_system_and_the_switch_overrules_it_by_keyboard(opened: Opened) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 27)"
    assert opened(colours="dark").evaluate(ground) == dark
    page = opened()
    assert page.evaluate(ground) == light and page.inner_text("#theme") == "Dark colours"
    for _ in range(9):  # past the links before it
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "theme":
            break
    page.keyboard.press("Enter")
    assert page.evaluate(ground) == dark and page.inner_text("#theme") == "Light colours"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    def is_dark_again() -> bool:
        page.reload()
        return bool(page.evaluate(ground) == dark)

    # A reload may be another process of the browser's, which knows the choice when that has been written.
    until(is_dark_again, "the choice that was kept")


def test_without_scripts_the_page_is_whole_and_has_no_dead_switch(opened: Opened) -> None:
    page = opened(script=False)
    assert page.locator("#theme").is_hidden() and page.locator("h2").count() == 3


def test_a_clip_plays(opened: Opened) -> None:
    play = """async () => { const clip = document.querySelector("audio"); clip.muted = true; await clip.play();
    return [clip.duration, clip.error]; }"""
    duration, error = opened().evaluate(play)
    assert abs(duration - 1.2) < 0.01 and error is None


def test_pictures_and_charts_are_drawn(opened: Opened) -> None:
    page = opened()
    assert page.evaluate("[...document.images].map(i => i.decode().then(() => i.naturalWidth)).length") == 3
    assert all(page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"))
    boxes = page.eval_on_selector_all("svg.chart", "els => els.map(e => e.getBoundingClientRect().height)")
    assert boxes and min(boxes) > 100


def test_on_paper_it_is_light_and_unfolded(opened: Opened) -> None:
    page = opened(colours="dark")
    closed = "document.querySelectorAll('details:not([open])').length"
    assert page.evaluate(closed) > 0
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(closed) == 0 and page.locator("#theme").is_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(closed) > 0
