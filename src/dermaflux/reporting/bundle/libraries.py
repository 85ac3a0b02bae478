"""Libraries inside the page: plotly.js and DataTables, as their wheels ship them.

Both are compressed (gzip, then base64), which the browser undoes with `DecompressionStream`: the
two are 5.4 MB as text and 2.2 MB so. A browser that cannot, or that runs no script, shows the
page's tables and static figures.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

_FILES = {
    "plotly": ("plotly", "plotly/package_data/plotly.min.js"),
    "datatables": ("itables", "itables/html/dt_bundle.js"),
}
"""Name in the page -> distribution and the file of it."""


@functools.cache
def compressed(name: str) -> str:
    """`plotly` or `datatables` as base64 of gzip; the same bytes for the same version."""
    package, file = _FILES[name]
    content = Path(str(distribution(package).locate_file(file))).read_bytes()
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def versions() -> dict[str, str]:
    """Distribution -> version of what is bundled."""
    return {package: distribution(package).version for package, _ in _FILES.values()}


@functools.cache
def script() -> str:
    """The page's own script, an ES module."""
    return (Path(__file__).parent / "page.js").read_text(encoding="utf-8")


def json_text(value: Any) -> str:
    """JSON that may stand inside a `<script>` element: no `<` of the data can end it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
