"""`dermaflux dag`: the stages in the order in which they run, and what each waits for.

`dvc dag` draws the same graph 867 columns wide. Reads dvc.yaml through DVC.
"""

from __future__ import annotations

import graphlib
import textwrap
from collections.abc import Mapping
from typing import Any

from dermaflux.sweeps.dvc_experiments import repository

_COLUMNS = 100


def run() -> None:
    """Print the graph of the pipeline in the working directory."""
    with repository() as repo:
        print(text(waits_for(repo.index.graph)))


def waits_for(graph: Any) -> dict[str, dict[str, int]]:
    """Stage -> the stages that it reads from, with the number of their cells, in order of running.

    `graph` has an edge from each of DVC's stages to each that it depends on. Cells of a matrix
    count as one stage; an input without a command is left out.
    """
    cells: dict[str, int] = {}
    below: dict[str, set[str]] = {}
    for stage in graph:
        if stage.is_data_source:
            continue
        name = _name(stage)
        cells[name] = cells.get(name, 0) + 1
        read = {_name(other) for other in graph.successors(stage) if not other.is_data_source}
        below.setdefault(name, set()).update(read - {name})
    # Sorted, since the order of a set differs from one process to the next.
    sorter = graphlib.TopologicalSorter({name: sorted(read) for name, read in below.items()})
    ordered = list(sorter.static_order())
    return {
        name: {other: cells[other] for other in ordered if other in below[name]} for name in ordered
    }


def _name(stage: Any) -> str:
    return str(stage.addressing).split("@")[0]


def text(stages: Mapping[str, Mapping[str, int]]) -> str:
    """One stage a line, at most 100 columns; what a matrix has several of, with their number."""
    width = max((len(name) for name in stages), default=0)
    lines = []
    for name, others in stages.items():
        listed = ", ".join(f"{other} ({n})" if n > 1 else other for other, n in others.items())
        start = f"{name:<{width}}  after  " if listed else name
        lines += textwrap.wrap(
            listed, _COLUMNS, initial_indent=start, subsequent_indent=" " * (width + 9)
        ) or [start]
    return "\n".join(lines)
