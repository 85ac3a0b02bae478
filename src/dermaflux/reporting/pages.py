"""Number formats of the pages, and the environment of their templates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dermaflux.errors import InputError
from dermaflux.statistics.effects import Effect
from dermaflux.statistics.evaluations import Estimate

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

T = TypeVar("T")


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


@dataclass(frozen=True)
class Missing:
    """A part of the page that cannot be shown, and why: one sentence."""

    problem: str


def part(build: Callable[..., T], *arguments: object) -> T | Missing:
    """What `build` gives, or the sentence with which it refused: the rest of the page stands."""
    try:
        return build(*arguments)
    except InputError as error:
        return Missing(str(error))


def scalars(content: Mapping[str, Any]) -> dict[str, str]:
    """The plain values of a report as text, nested names joined by dots; lists are left out.

    A value beside its `low` and `high` is one entry, with the interval or the reason for none.
    """
    values: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, Mapping) and value.keys() >= {"value", "low", "high"}:
            values[name] = _with_interval(value)
        elif isinstance(value, Mapping):
            values.update({f"{name}.{key}": text for key, text in scalars(value).items()})
        elif isinstance(value, float):
            values[name] = number(value, 4)
        elif isinstance(value, int) and not isinstance(value, bool):
            values[name] = f"{value:,}"
        elif isinstance(value, (bool, str)):
            values[name] = str(value)
    return values


def _with_interval(figure: Mapping[str, Any]) -> str:
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    if value is None:
        return f"none: {figure.get('reason', 'not measured')}"
    if low is None or high is None:
        return number(value, 4)
    return f"{number(value, 4)} ({number(low, 4)} to {number(high, 4)})"


def linked(text: str, address: str) -> Markup:
    """A number as a link to its run; as it is where there is none to link to."""
    from markupsafe import Markup

    if not address:
        return Markup("{}").format(text)
    return Markup('<a class="n" href="{}">{}</a>').format(address, text)


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
    templates.globals |= {"interval": interval, "limits": limits, "linked": linked}
    return templates
