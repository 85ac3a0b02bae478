"""How pages are filled: numbers as readers see them, and the environment of the templates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.statistics.effects import Effect
from dermaflux.statistics.evaluations import Estimate

if TYPE_CHECKING:
    from jinja2 import Environment


def number(value: float | None, places: int = 3) -> str:
    """A figure for a table cell; a dash when there is none."""
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
    """A p-value; small ones as a bound."""
    return "< 0.001" if value < 0.001 else number(value)


def limits(row: dict[str, float], name: str) -> str:
    """The interval of a figure in a table row that holds `<name>_low` and `<name>_high`."""
    return interval(Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]))


def interval(found: Estimate | Effect, sign: bool = False) -> str:
    """The limits as `low to high`, empty when there are none."""
    if not found.has_interval:
        return ""
    write = signed if sign else number
    return f"{write(found.low)} to {write(found.high)}"


def environment(folder: Path) -> Environment:
    """Templates of a folder; text from data is escaped and an absent name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "signed": signed, "percent": percent, "p_value": p_value}
    made.globals |= {"interval": interval, "limits": limits}
    return made
