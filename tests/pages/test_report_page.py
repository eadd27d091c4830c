"""The page of python -m experiments.report --html in a real browser. Run by `make test-pages`, which writes it first."""

from __future__ import annotations

import json
import pathlib
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.pages import browser

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "build" / "report.html"
SHOTS = ROOT / "build" / "screenshots"
pytestmark = pytest.mark.browser
CELLS = "return [...arguments[0].querySelectorAll('tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    assert PAGE.exists(), "python -m experiments.report --html writes it"
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', PAGE.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with browser.opened(PAGE.as_uri()) as opened:
        yield opened


def find(window: Any, selector: str) -> Any:
    return window.find_element("css selector", selector)


def section(window: Any, device: str, number: int = 0) -> Any:
    """A device's tab is chosen; its section."""
    find(window, f"#tab-{device}").click()
    return find(window, f"#panel-{device}").find_elements("css selector", "section.figures")[number]


def first_with(data: dict[str, Any], how: str) -> tuple[str, int, dict[str, Any]]:
    """Device, number and content of the first section of a kind."""
    return next(
        (device["id"], number, found)
        for device in data["devices"]
        for number, found in enumerate(device["sections"])
        if found["how"] == how
    )


def test_tabs_show_one_device_at_a_time(window: Any, data: dict[str, Any]) -> None:
    for device in data["devices"]:
        find(window, f"#tab-{device['id']}").click()
        shown = [
            panel.get_attribute("id")
            for panel in window.find_elements("css selector", "[role=tabpanel]")
            if panel.is_displayed()
        ]
        assert shown == [f"panel-{device['id']}"]
        chosen = window.find_elements("css selector", "[role=tab][aria-selected=true]")
        assert [tab.text for tab in chosen] == [device["name"]]
        assert window.execute_script("return location.hash") == f"#{device['id']}"
    first, second = data["devices"][:2]
    find(window, f"#tab-{first['id']}").click()
    find(window, f"#tab-{first['id']}").send_keys("\ue014")  # the right arrow
    assert find(window, f"#panel-{second['id']}").is_displayed()


@pytest.mark.parametrize("how", ["measured", "compiled", "modelled", "executed"])
def test_a_click_sorts_and_another_turns_round(window: Any, data: dict[str, Any], how: str) -> None:
    device, number, content = first_with(data, how)
    part = section(window, device, number)
    draw = random.Random(7)
    columns = [at for at, column in enumerate(content["columns"]) if column["kind"] == "number" and column["name"] != "wrong"]
    for at in draw.sample(columns, 2):
        numbers = sorted((row[at] for row in content["rows"] if isinstance(row[at], int | float)), reverse=True)
        over = sum(row[at] == "over" for row in content["rows"])
        for direction in ("descending", "ascending"):
            head = part.find_elements("css selector", "thead th")[at]
            head.find_element("css selector", "button").click()
            assert head.get_attribute("aria-sort") == direction
            shown = [row[at] for row in window.execute_script(CELLS, part)]
            plain = [float(cell.replace(",", "")) for cell in shown if cell not in ("", "over")]
            # Cells are rounded to two or three digits.
            assert plain == pytest.approx(numbers, rel=0.06, abs=1e-12)
            assert (shown[:over] if direction == "descending" else shown[len(plain) : len(plain) + over]) == ["over"] * over
            assert not any(shown[len(plain) + over :]), "empty cells last"
            numbers.reverse()


def test_filters_keep_what_they_say_and_charts_follow(window: Any, data: dict[str, Any]) -> None:
    device, number, content = first_with(data, "modelled")
    window.refresh()  # what an earlier test sorted
    part = section(window, device, number)
    names = [column["name"] for column in content["columns"]]
    rows = lambda: window.execute_script(CELLS, part)
    chosen = random.Random(3).choice(sorted({row[names.index("of")] for row in content["rows"]}))
    expected = [row for row in content["rows"] if row[names.index("of")] == chosen]
    part.find_element("css selector", f"select option[value='{chosen}']").click()
    assert [row[0] for row in rows()] == [row[0] for row in expected]
    assert part.find_element("css selector", ".count").text == f"{len(expected)} of {len(content['rows'])} rows"
    assert len(part.find_elements("css selector", "svg .bar")) == min(30, len(expected))
    points = [point for point in content["roofline"]["points"] if point[0] in {row[0] for row in expected}]
    assert len(part.find_elements("css selector", "svg .point")) == len(points)
    part.find_element("css selector", "select option[value='']").click()
    search = part.find_element("css selector", "input[type=search]")
    search.send_keys("lstm bwd")
    assert rows()
    assert all("lstm" in row[0] and "bwd" in row[0] for row in rows())
    search.send_keys("\ue009a\ue000\ue017nothing is called this")  # select all, delete
    assert rows() == []
    assert not part.find_elements("css selector", "svg .bar")
    search.clear()
    search.send_keys(" ")
    assert len(rows()) == len(content["rows"])


def test_kinds_of_figures_are_never_mixed(window: Any, data: dict[str, Any]) -> None:
    for device in data["devices"]:
        for content in device["sections"]:
            heads = " ".join(column["name"] for column in content["columns"])
            assert ("modelled" in heads) == (content["how"] == "modelled"), content["title"]
            if content["how"] in ("compiled", "executed"):
                assert " ms" not in heads, content["title"]
    kinds = [part.get_attribute("class").split()[1] for part in window.find_elements("css selector", ".verdict")]
    assert kinds == [how for how in ("measured", "compiled", "modelled", "executed") if how in kinds]
    assert len(set(kinds)) == len(kinds)


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = PAGE.read_text()
    assert not re.search(r'(?:src|href)="(?!data:,|#)', text)
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [browser.DESK, browser.PHONE])
def test_it_is_readable_at_any_width(width: int, scheme: str) -> None:
    """Nothing wider than the window, text of at least 11 pixels with contrast; the screenshot is in build/screenshots/."""
    with browser.opened(PAGE.as_uri(), width, scheme, 3000) as window:
        assert window.execute_script("return document.documentElement.scrollWidth") == width
        small = "return [...document.querySelectorAll('p, td, th, button, svg text')].filter(e => e.checkVisibility() && "
        assert window.execute_script(small + "parseFloat(getComputedStyle(e).fontSize) < 11).length") == 0
        colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        ink, ground = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in window.execute_script(colours))
        assert (ink - ground if scheme == "dark" else ground - ink) > 150
        SHOTS.mkdir(parents=True, exist_ok=True)
        window.save_screenshot(str(SHOTS / f"report-{scheme}-{width}.png"))
