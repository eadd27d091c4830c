"""The documentation site, opened as files in a real browser. Run by `make test-pages`, after `make docs`."""

from __future__ import annotations

import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.pages import browser

SITE = pathlib.Path(__file__).parents[2] / "build" / "site"
SHOTS = SITE.parent / "screenshots"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    assert SITE.is_dir(), "make docs builds it"
    with browser.opened((SITE / "index.html").as_uri()) as opened:
        yield opened


def search(window: Any, words: str) -> list[str]:
    """Addresses that the search finds; waits until there are some."""
    window.get((SITE / "guide" / "index.html").as_uri())
    window.execute_script("document.querySelector('[data-md-toggle=search]').click()")
    field = window.find_element("css selector", "input.md-search__input")
    field.send_keys(words)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = window.find_elements("css selector", ".md-search-result__item a")
        if found:
            return [link.get_attribute("href") for link in found]
        time.sleep(0.1)
    return []


@pytest.mark.parametrize(
    ("words", "page"),
    [("bank conflicts", "guide/bank-conflicts.html"), ("max_pool", "api/kernels.html"), ("create_model", "api/zoo.html")],
)
def test_search_works_from_files(window: Any, words: str, page: str) -> None:
    assert any((SITE / page).as_uri() in address for address in search(window, words))


def test_nothing_is_loaded_from_elsewhere() -> None:
    pages = list(SITE.rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]*(?:src|href)="(?:https?:)?//[^"]*"[^>]*>', path.read_text())
        assert not loaded, path


def test_each_page_has_its_pictures(window: Any) -> None:
    """Every picture of the lessons and of the first page is there; the links between pages are mkdocs' to check."""
    broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src)"
    lessons = [path for path in sorted((SITE / "guide").glob("*.html")) if "<img" in path.read_text()]
    assert len(lessons) >= 10
    for path in [SITE / "index.html", SITE / "comparison.html", *lessons]:
        window.get(path.as_uri())
        assert window.execute_script(broken) == [], path


@pytest.mark.parametrize(("width", "scheme"), [(browser.DESK, "light"), (browser.PHONE, "dark")])
def test_it_fits_the_window(width: int, scheme: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with browser.opened((SITE / "index.html").as_uri(), width, scheme, 1400) as window:
        for page in ("getting-started", "guide/coalescing", "api/kernels"):
            window.get((SITE / f"{page}.html").as_uri())
            assert window.execute_script("return document.documentElement.scrollWidth") <= width
            window.save_screenshot(str(SHOTS / f"site-{page.replace('/', '-')}-{scheme}-{width}.png"))
