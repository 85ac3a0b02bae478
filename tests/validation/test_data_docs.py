"""Data Docs pages fetch nothing, link to each other and show what failed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from dermaflux.validation import checks, data_docs, validate

# Attributes by which a page makes a browser fetch something at once, unlike a link to click on.
FETCHED = {"src", "srcset", "data", "poster", "background"}
VOID = {"meta", "br", "hr", "input", "img", "link"}


class Page(HTMLParser):
    """What a browser would fetch, the links, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.text = self.style = ""
        self._inside: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._inside.append(tag)
        for name, value in attributes:
            if name in FETCHED or (name == "href" and tag in ("link", "base", "use", "image")):
                self.fetched.append(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name == "style":
                self.style += value or ""

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._inside[-1:] == ["style"]:
            self.style += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Docs of one suite with a check that holds and one that fails for one row."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    frame = pd.DataFrame({"image_id": ["a/1", "a/2", "a/3"], "scale": [128, 256, 77]})
    suite = [checks.unique("unique ids", "image_id"), checks.among("scales", "scale", (128, 256))]
    context = validate._context()
    validate._validate(context, "corpus", suite, frame)
    data_docs.write(context, folder)
    return folder


def test_no_page_fetches_anything(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 3
    assert [path for path in site.rglob("*") if path.is_file() and path not in pages] == []
    for path in pages:
        page = Page(path)
        assert page.fetched == []
        assert "border-collapse" in page.style
        assert re.findall(r"@import|url\(", page.style) == []
        assert "<script" not in path.read_text()


def test_links_between_pages_lead_to_pages(site: Path) -> None:
    seen = {site / "index.html"}
    queue = list(seen)
    while queue:
        path = queue.pop()
        for link in Page(path).links:
            if link.startswith(("#", "https://greatexpectations.io")):
                continue
            target = (path.parent / link.split("#")[0]).resolve()
            assert target.is_file(), (path, link)
            if target not in seen:
                seen.add(target)
                queue.append(target)
    assert len(seen) == 3


def test_the_index_says_how_many_fail_and_the_page_which_rows(site: Path) -> None:
    assert "corpus: 1 of 2 expectations fail" in Page(site / "index.html").text
    (results,) = (site / "validations").rglob("*.html")
    text = Page(results).text
    assert "scales: every scale is one of 128, 256" in text
    assert "77" in text
    assert "not recorded" in text
    assert "1970" not in text
