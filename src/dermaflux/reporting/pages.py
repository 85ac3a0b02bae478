"""Number formats of the pages, and the environment of their templates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.statistics.effects import Effect
from dermaflux.statistics.evaluations import Estimate

if TYPE_CHECKING:
    from jinja2 import Environment


def number(value: float | None, places: int = 3) -> str:
    """A value for a table cell; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{places}f}".replace("-", "−")


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def percent(value: float) -> str:
    """A confidence level such as `95 %`."""
    return f"{100 * value:.3g} %"


def p_value(value: float) -> str:
    """A p-value; below 0.001 as a bound."""
    return "< 0.001" if value < 0.001 else number(value)


def limits(row: dict[str, float], name: str) -> str:
    """The interval of a metric in a row with the columns `<name>_low` and `<name>_high`."""
    return interval(Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]))


def interval(estimate: Estimate | Effect, sign: bool = False) -> str:
    """The limits as `low to high`, empty without an interval."""
    if not estimate.has_interval:
        return ""
    write = signed if sign else number
    return f"{write(estimate.low)} to {write(estimate.high)}"


def environment(folder: Path) -> Environment:
    """Templates of a folder; HTML is escaped, and an undefined name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    templates = Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "p_value": p_value,
    }
    templates.globals |= {"interval": interval, "limits": limits}
    return templates
