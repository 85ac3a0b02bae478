"""`dermaflux browse` in a real browser: nothing on its console, images, keyboard, accessibility."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import browsed_run
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="this machine has no chromium")
COMMAND = [sys.executable, "-c", "from dermaflux.cli import main; main()", "browse", "--no-open"]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The table of images, served by the command itself until Control-C."""
    port, folder = free_port(), tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        browsed_run.write_run()
    command = [*COMMAND, "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        while f"http://127.0.0.1:{port}/" not in (line := server.stdout.readline()):
            assert line, "the server ended"
        yield f"http://127.0.0.1:{port}/dermaflux/images"
        server.send_signal(signal.SIGINT)
        assert server.wait(30) in (0, 130)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that ends with nothing on its console."""
    said: list[str] = []
    opened = browser.new_page()
    opened.set_default_timeout(60_000)
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    yield opened
    opened.close()
    assert said == []


def ids(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("td.col-image_id").all_inner_texts()]


def undrawn(page: Page) -> int:
    """Images that the browser could not draw; those out of sight are asked for, too."""
    return int(
        page.evaluate(
            "async () => { const images = [...document.images];"
            "images.forEach((each) => { each.loading = 'eager'; });"
            "const drawn = images.map((each) => each.decode().then(() => 0, () => 1));"
            "return (await Promise.all(drawn)).reduce((sum, each) => sum + each, 0); }"
        )
    )


def press_until_focused(page: Page, selector: str) -> None:
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("(chosen) => document.activeElement?.matches(chosen)", selector):
            return
    raise AssertionError(f"the keyboard does not reach {selector}")


def test_sort_filter_images_and_keyboard(address: str, page: Page) -> None:
    page.goto(address)
    assert page.locator("td.col-image_id img").count() == 50
    assert undrawn(page) == 0
    # A filter by the keyboard alone: a value of a column, then the page of an image.
    press_until_focused(page, '.facet-info a[href*="label=malignant"]')
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("label=malignant"))
    assert ids(page) == [f"ddi/m{number}" for number in range(5)]
    # Sorted by a heading, and back.
    for direction in (1, -1):
        page.locator("th.col-image_id > a").click()
        page.wait_for_url(re.compile("_sort=" if direction == 1 else "_sort_desc="))
        assert ids(page) == [f"ddi/m{number}" for number in range(5)][::direction]
    press_until_focused(page, "a.thumbnail")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/images/\d+$"))
    assert page.locator("h1").inner_text() == "ddi/m4"
    assert undrawn(page) == 0


def test_a_filter_typed_into_the_form_finds_the_planted_group(address: str, page: Page) -> None:
    page.goto(address)
    page.select_option('select[name="_filter_column"]', "group_size")
    page.fill('input[name="_filter_value"]', str(browsed_run.COPIES))
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("group_size__exact=3"))
    assert sorted(ids(page)) == ["hiba/a copy", "hiba/kept", "hiba/third"]
    assert undrawn(page) == 0


def test_axe_finds_no_violation(address: str, page: Page) -> None:
    tables = address.removesuffix("/images")
    pages = ["/images", "/images?kind=synthetic&lable=1", "/images/51", "/duplicate_groups"]
    for name in [*pages, "/neighbours", "", "?sql=select+*+from+images"]:
        page.goto(tables + name)
        time.sleep(0.1)  # names of controls come after the page
        found = Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == [], name
