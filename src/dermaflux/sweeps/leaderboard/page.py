"""A leaderboard as printed lines and as values of the template `leaderboard.html`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dermaflux.reporting import plots
from dermaflux.sweeps.leaderboard import ranks
from dermaflux.sweeps.leaderboard.schema import Entry, Interval, Leaderboard, Rate, Result

_COLOURS = {"measured": "#14557b", "submitted": "#b0620e"}


def tables(board: Leaderboard) -> dict[str, list[tuple[Entry, Result]]]:
    """Architecture -> the rows of its table, best first; those without a rate come last."""
    names = dict.fromkeys(row.architecture for each in board.entries for row in each.results)
    found = {}
    for name in names:
        rows = [(each, row) for each in board.entries for row in each.results]
        rows = [pair for pair in rows if pair[1].architecture == name]
        found[name] = sorted(
            rows,
            key=lambda pair: (
                pair[1].rate is None,
                -(pair[1].rate or pair[1].gain).value,
                pair[0].pool,
            ),
        )
    return found


def span(interval: Interval, digits: int, sign: bool = False) -> str:
    """`0.05 to 0.21`, `0.05 or more`, or empty where both ends are open."""
    low, high = (
        None if x is None else f"{x:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")
        for x in (interval.low, interval.high)
    )
    if low is None and high is None:
        return "any"
    if high is None:
        return f"{low} or more"
    return f"{high} or less" if low is None else f"{low} to {high}"


def rate(value: Rate) -> str:
    """`0.08`, with `at least` where the curve ends."""
    number = f"{value.value + 0:.2f}".replace("-", "\N{MINUS SIGN}")
    return f"{value.bound} {number}".strip()


def rank(row: Result) -> str:
    """`1 to 3`, or a dash."""
    return "\N{EN DASH}" if row.rank is None else ranks.text(row.rank.best, row.rank.worst)


def speed(entry: Entry) -> str:
    """Images per second with three digits, or a dash."""
    if entry.images_per_second is None:
        return "\N{EN DASH}"
    return f"{entry.images_per_second:,.3g}"


def lines(board: Leaderboard) -> Iterator[str]:
    """What is printed: a line for each pool and architecture."""
    for name, rows in tables(board).items():
        yield f"Real images that one synthetic image was worth, {name}:"
        for entry, row in rows:
            worth = f"not known: {row.why_no_rate}"
            if row.rate is not None:
                worth = f"{rate(row.rate)} ({span(row.rate, 2)})"
            kid = "" if entry.kid is None else f", KID {entry.kid.value:.4f}"
            share = entry.memorised / entry.images if entry.images else 0.0
            yield (
                f"  {rank(row)}. {entry.pool}: {worth}, AUC {row.gain.value:+.3f}{kid}, "
                f"{share:.1%} memorised, {entry.licence}"
                f"{', submitted, not run here' if entry.state == 'submitted' else ''}"
            )
    for entry in board.entries:
        if entry.state == "not run":
            yield f"  not run: {entry.pool}: {entry.reason}"


def values(board: Leaderboard) -> dict[str, Any]:
    """Of the template."""
    return {
        "board": board,
        "tables": tables(board),
        "absent": [entry for entry in board.entries if entry.state == "not run"],
        "overlapping": _overlapping(board),
        "span": span,
        "rate": rate,
        "rank": rank,
        "speed": speed,
        "forest": forest(board),
    }


def _overlapping(board: Leaderboard) -> bool:
    found = [row.rank for each in board.entries for row in each.results if row.rank is not None]
    return any(each.best < each.worst for each in found)


def forest(board: Leaderboard) -> bytes | None:
    """Exchange rates with their intervals as SVG, a panel for each architecture; None without any.

    Arrows are open ends: the interval goes on beyond what was measured.
    """
    shown = {
        name: [(entry, row.rate) for entry, row in rows if row.rate is not None]
        for name, rows in tables(board).items()
    }
    shown = {name: rows for name, rows in shown.items() if rows}
    if not shown:
        return None
    most = max(map(len, shown.values()))
    figure, panels = plots.panels(1.4 + 4.4 * len(shown), 1.0 + 0.34 * most, 1, len(shown))
    for plot, (name, rows) in zip(panels[0], shown.items(), strict=True):
        _panel(plot, board, name, rows)
    return plots.svg_file(figure)


def _panel(plot: Any, board: Leaderboard, name: str, rows: list[tuple[Entry, Rate]]) -> None:
    sizes: list[int] = [size.images for size in board.sizes if size.architecture == name]
    ends = [(end - board.real) / board.synthetic for end in (min(sizes), max(sizes))]
    for number, (entry, value) in enumerate(rows):
        colour = _COLOURS[entry.state]
        low, high = (
            end if limit is None else limit
            for limit, end in zip((value.low, value.high), ends, strict=True)
        )
        plot.plot([low, high], [number, number], color=colour, linewidth=1.8)
        for limit, end, mark in ((value.low, ends[0], "<"), (value.high, ends[1], ">")):
            if limit is None:
                plot.plot(end, number, mark, color=colour, markersize=6)
        plot.plot(value.value, number, "o", color=colour, markersize=5)
    plot.axvline(0, color=plots.GREY, linewidth=0.9)
    plot.axvline(1, color=plots.GREY, linewidth=0.9, linestyle="--")
    labels: list[str] = [entry.pool for entry, _ in rows]
    plot.set_yticks(range(len(rows)), labels)
    plot.set_ylim(len(rows) - 0.5, -0.5)
    plot.set(title=name, xlabel="real images per synthetic image")
