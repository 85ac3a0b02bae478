"""The page in a real browser: no error, no network, sorting, filters, keyboard, accessibility."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from dermaflux import paths
from dermaflux.params import Params
from dermaflux.reporting import report

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture
def page(workspace: Params) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    paths.REPORT_PAGE.write_text(report.render(workspace), encoding="utf-8")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 800})
        opened.told = []
        opened.on("console", lambda message: opened.told.append(message.text))
        opened.on("pageerror", lambda error: opened.told.append(str(error)))
        opened.on("request", lambda request: opened.told.append(request.url[:60])
                  if not request.url.startswith(("file:", "data:", "blob:")) else None)  # fmt: skip
        opened.goto(paths.REPORT_PAGE.absolute().as_uri())
        settled = "window.reportSettled?.charts && window.reportSettled?.tables"
        opened.wait_for_function(settled, timeout=120_000)
        yield opened
        browser.close()


def column(table: Any, number: int) -> list[str]:
    cells = table.locator(f"tbody tr > :nth-child({number})")
    return [text.split("\n")[0] for text in cells.all_inner_texts()]


def test_the_page_works_in_a_browser(page: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # Charts are drawn, and a pointer on a value shows it with its interval.
    gains = page.locator('[data-chart="gains"]')
    gains.locator(".points path").first.hover(force=True)  # plotly.js listens on a layer above
    gains.locator(".hoverlayer text").first.wait_for()
    told = gains.locator(".hoverlayer").text_content()
    assert "synthetic images" in told
    assert " to " in told

    # Sorting by the keyboard, of numbers with signs and without.
    table = page.locator("#results table", has_text="Family size")
    unsorted = column(table, 3)
    table.locator("thead th").nth(2).locator("[tabindex]").first.focus()
    page.keyboard.press("Enter")
    table.locator('thead th[aria-sort="ascending"]').wait_for()
    values = [float(text.replace("\N{MINUS SIGN}", "-")) for text in column(table, 3)]
    assert values == sorted(values)
    assert values[0] < 0 < values[-1]  # as text they would have another order
    assert sorted(unsorted) == sorted(column(table, 3))
    page.locator("#results .dt-search input").last.fill("resnext")
    assert set(column(table, 1)) == {"resnext"}

    # Filters of the images; a real image stays beside synthetic ones of a verdict.
    total = page.locator(".tile").count()
    page.locator('[data-filter="label"]').select_option("malignant")
    page.locator('[data-filter="verdict"]').select_option("kept")
    shown = page.locator(".tile:not([hidden])")
    assert 0 < shown.count() < total
    assert {tile.get_attribute("data-label") for tile in shown.all()} == {"malignant"}
    assert page.locator(".filters output").inner_text().startswith(f"{shown.count()} of {total}")
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert page.evaluate(broken) == 0

    # A number leads to its artefact's row, and the Tab key reaches links and folds.
    page.locator("#findings .answer a.n").first.click()
    assert page.evaluate("document.querySelector('tr:target')?.cells[0].innerText").startswith(
        "reports/evaluate/"
    )
    page.locator("#groups summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#groups details").first.get_attribute("open") is not None

    assert Axe().run(page).violations_count == 0
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    assert Axe().run(page).violations_count == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.told == []
