"""A chart as data: traces and layout for plotly.js, without the colours of a theme.

The page's script adds the colours of text and lines, which follow the reader's light or dark
setting. Numbers keep five significant digits, so equal inputs give equal bytes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Trace = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """One chart; `alt` says in words what it shows, for who cannot see it."""

    traces: Sequence[Trace]
    alt: str
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 320
    """Pixels."""

    def data(self) -> dict[str, Any]:
        """What the page's script hands to plotly.js."""
        return {"data": list(self.traces), "layout": self.layout, "height": self.height}


def short(value: float) -> float | None:
    """Five significant digits; None, which plotly.js leaves out, for what is no number."""
    if not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def shorts(values: Iterable[float]) -> list[float | None]:
    """`short` of each value."""
    return [short(float(value)) for value in values]


def text(words: str) -> str:
    """Text that plotly.js, which knows some HTML, shows as it is."""
    return html.escape(words, quote=False)


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """An axis with its title."""
    return {"title": {"text": text(title)}, "automargin": True, **settings}


def line(x: Sequence[float], y: Sequence[float], name: str, colour: str, **settings: Any) -> Trace:
    """A line; its points show their values."""
    drawn = {"color": colour, "width": settings.pop("width", 2)}
    if "dash" in settings:
        drawn["dash"] = settings.pop("dash")
    return {
        "type": "scatter",
        "mode": "lines",
        "x": shorts(x),
        "y": shorts(y),
        "name": text(name),
        "line": drawn,
        **settings,
    }


def reference(x: Sequence[float], y: Sequence[float], name: str = "") -> Trace:
    """A thin dashed line to read others against; in the theme's colour of lines."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": shorts(x),
        "y": shorts(y),
        "name": text(name),
        "line": {"width": 1, "dash": "dash"},
        "meta": "reference",
        "showlegend": bool(name),
        "hoverinfo": "skip",
    }
