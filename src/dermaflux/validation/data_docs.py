"""Great Expectations' Data Docs as a deterministic site that can be read without a network.

Writes the site into a given folder. Great Expectations prints run times and random ids and loads
its logo, style sheets and tables from other servers; the pages are rewritten so that equal data
give equal bytes, nothing is told to the logo's server, and what matters shows offline too.
"""

from __future__ import annotations

import datetime
import html
import re
import shutil
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
_REMOTE_LOGO = re.compile(
    r"https://great-expectations-web-assets\.s3\.[a-z0-9-]+\.amazonaws\.com/[\w-]+\.png"
    r"(?:\?d=[\w.]*)?"
)
# Stands first, so that the remote style sheets win where there is a network. Without one, the
# icons are letters of a font that is absent, and the breadcrumbs cover the heading. The footer is
# an advertisement.
_STYLE = """<style>
body { font-family: sans-serif; padding-bottom: 40px; }
footer { display: none !important; }
table { border-collapse: collapse; }
td, th { padding: 4px 10px; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
.breadcrumb { margin: 0 0 50px; }
.fa-check-circle::before { content: "\\2713"; color: #28a745; }
.fa-times::before { content: "\\2717"; color: #dc3545; }
.fa-exclamation-triangle::before { content: "!"; color: #ffc107; }
</style>
"""


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
    for page in sorted(folder.rglob("*.html")):
        up = "../" * (len(page.relative_to(folder).parts) - 1)
        text = _plain(page.read_text(encoding="utf-8"), f"{up}static/images/logo-long.png")
        page.write_text(text, encoding="utf-8")
    index = folder / "index.html"
    index.write_text(_with_links(index.read_text(encoding="utf-8"), folder), encoding="utf-8")


def _plain(text: str, logo: str) -> str:
    """A page without times and the remote logo, its random ids numbered, legible unstyled."""
    numbers: dict[str, str] = {}

    def number(one: re.Match[str]) -> str:
        return numbers.setdefault(one[0], str(len(numbers)))

    text = _REMOTE_LOGO.sub(logo, text).replace(_RUN_FOLDER, "latest")
    text = _RANDOM_ID.sub(number, _TIME.sub("not recorded", text))
    return text.replace("<head>", f"<head>\n{_STYLE}", 1)


def _with_links(text: str, folder: Path) -> str:
    """The index with links as plain rows; its script puts its own table there when it loads."""
    for table, pages, words in (
        ("ge-index-page-validation-results-table", "validations", _verdict),
        ("ge-index-page-expectation_suites-table", "expectations", _suite),
    ):
        rows = "".join(
            f'<tr><td><a href="{html.escape(page.relative_to(folder).as_posix())}">'
            f"{html.escape(words(page))}</a></td></tr>"
            for page in sorted((folder / pages).rglob("*.html"))
        )
        opening = re.search(rf"<table[^>]*{table}[^>]*>", text)
        if opening:
            text = text[: opening.end()] + rows + text[opening.end() :]
    return text


def _verdict(page: Path) -> str:
    """Such as ``corpus: 2 of 27 expectations fail``, read off the page's own statistics."""
    text = re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8"))
    found = [
        re.search(rf"{kind} Expectations\s+(\d+)", text) for kind in ("Evaluated", "Unsuccessful")
    ]
    evaluated, failed = (int(one[1]) if one else 0 for one in found)
    verdict = f"{failed} of {evaluated} expectations fail" if failed else "every expectation holds"
    return f"{page.stem.removeprefix('tables-')}: {verdict}"


def _suite(page: Path) -> str:
    return f"{page.stem}: what is asked"
