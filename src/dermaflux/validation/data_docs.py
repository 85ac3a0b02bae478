"""Great Expectations' Data Docs as a deterministic site of self-contained pages.

Writes the site into a folder. Great Expectations prints run times and random ids and loads style
sheets, scripts and its logo from other servers; the pages are rewritten so that equal data give
equal bytes and a page fetches nothing but itself, with a network or without.
"""

from __future__ import annotations

import datetime
import html
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.ephemeral_data_context import (
        EphemeralDataContext,
    )

RUN_TIME = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
"""Give this to every validation: outputs hold no time, but Great Expectations needs one."""

_RUN_FOLDER = "19700101T000000.000000Z"
_TIME = re.compile(r"1970-01-01[T ]00:00:00(?:\.0+)?(?:Z|\+00:00| UTC)|\b\d{8}T\d{6}\.\d{6}Z")
_RANDOM_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
# The scripts do nothing without the remote libraries; the images are logos and a tutorial, and the
# footer is an advertisement.
_DROPPED = re.compile(
    r"<(script|style|footer)\b.*?</\1\s*>|<link\b[^>]*>|<img\b[^>]*>", re.DOTALL | re.IGNORECASE
)


def write(context: EphemeralDataContext, folder: Path) -> None:
    """Render the results that `context` holds into `folder`."""
    for name, site in list(context.list_data_docs_sites().items()):
        shutil.rmtree(site["store_backend"]["base_directory"], ignore_errors=True)
        context.delete_data_docs_site(name)
    context.add_data_docs_site(
        site_name="validation",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,  # type: ignore[typeddict-unknown-key]
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(folder.resolve()),
            },
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    context.build_data_docs()
    for run_folder in list(folder.rglob(_RUN_FOLDER)):
        run_folder.rename(run_folder.with_name("latest"))
    shutil.rmtree(folder / "static")
    style = resources.files(__package__).joinpath("data_docs.css").read_text(encoding="utf-8")
    for page in sorted(folder.rglob("*.html")):
        text = _self_contained(page.read_text(encoding="utf-8"), style)
        page.write_text(text, encoding="utf-8")
    index = folder / "index.html"
    index.write_text(_with_links(index.read_text(encoding="utf-8"), folder), encoding="utf-8")


def _self_contained(text: str, style: str) -> str:
    """A page with its style sheet inside, without times and scripts, its random ids numbered."""
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return numbers.setdefault(match[0], str(len(numbers)))

    text = _DROPPED.sub("", text).replace(_RUN_FOLDER, "latest")
    text = _RANDOM_ID.sub(number, _TIME.sub("not recorded", text))
    return text.replace("<head>", f"<head>\n<style>\n{style}</style>", 1)


def _with_links(text: str, folder: Path) -> str:
    """The index with links as plain rows, where its script would put a table."""
    for table, pages, title, describe in (
        ("ge-index-page-validation-results-table", "validations", "Validation results", _outcome),
        ("ge-index-page-expectation_suites-table", "expectations", "Expectation suites", _suite),
    ):
        rows = "".join(
            f'<tr><td><a href="{html.escape(page.relative_to(folder).as_posix())}">'
            f"{html.escape(describe(page))}</a></td></tr>"
            for page in sorted((folder / pages).rglob("*.html"))
        )
        opening = re.search(rf"<table[^>]*{table}[^>]*>", text)
        if opening:
            heading = f"<tr><th>{title}</th></tr>"
            text = text[: opening.end()] + heading + rows + text[opening.end() :]
    return text


def _outcome(page: Path) -> str:
    """Such as ``corpus: 2 of 27 expectations fail``, from the page's own statistics."""
    text = re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8"))
    matches = [
        re.search(rf"{kind} Expectations\s+(\d+)", text) for kind in ("Evaluated", "Unsuccessful")
    ]
    evaluated, failed = (int(match[1]) if match else 0 for match in matches)
    outcome = f"{failed} of {evaluated} expectations fail" if failed else "every expectation holds"
    return f"{page.stem.removeprefix('tables-')}: {outcome}"


def _suite(page: Path) -> str:
    return f"{page.stem}: expectation suite"
