"""Grid files: the protocols in `grids/*.yaml`, and the runs each expands to.

A grid has `set`, the parameters of every run, and `runs`, a list of blocks. A block may set further
parameters (`set`) and list values (`vary`), of which the Cartesian product is taken. Parameters are
written as on DVC's command line: `train.seeds: [0, 1]`. In place of `runs` it may have `pools`:
synthetic images by name, a run for each, which `dermaflux results` ranks.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from dermaflux.errors import InputError, one_line, quoted
from dermaflux.params import yaml_file
from dermaflux.sweeps.pools import Overrides, Part, Pool, absolute
from dermaflux.sweeps.published import FidelityRow, Published, Row

FOLDER = Path("grids")
_OLD_FOLDER = Path("experiments")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


_MOST_RUNS = 10_000


class Block(Part):
    """Runs that share `set` and differ in `vary`."""

    name: str = ""
    """Part of the runs' names; needed when two blocks vary the same parameters."""
    set_: Overrides = Field(alias="set", default={})
    vary: dict[str, list[Any]] = {}


class Grid(Part):
    """A named set of experiments."""

    description: str
    source: str
    """Paper and section, or `ours`."""
    layout: Literal["ratios", "generators", "zero_shot", "low_data", "table", "fidelity"] = "ratios"
    """How `dermaflux results` lays out the metrics."""
    set_: Overrides = Field(alias="set", default={})
    runs: list[Block] = []
    pools: dict[str, Pool] = {}
    """Name -> images; a run for each in place of `runs`, ranked by what an image is worth."""
    published: list[Published] = []
    table: list[Row] = []
    """Of the layout `table`: the rows of a published table, in its order."""
    fidelity: list[FidelityRow] = []
    """Of the layout `fidelity`: the same of a table of generators, whose pools are audited and
    train no classifier."""
    notes: list[str] = []
    """Sentences about the published figures, shown below the table."""

    def blocks(self) -> list[Block]:
        """Blocks of `runs`, or one for each pool."""
        pools = self.pools.items()
        named = [
            Block.model_validate({"name": name, "set": each.overrides()}) for name, each in pools
        ]
        return [*self.runs, *named]

    @model_validator(mode="after")
    def _runs_or_pools(self) -> Grid:
        if bool(self.runs) == bool(self.pools):
            raise ValueError(
                "a grid has either runs, a list of blocks, or pools, synthetic images by name, "
                f"and this one has {'both' if self.runs else 'neither: runs is empty'}; keep or "
                "write one"
            )
        first: dict[str, str] = {}
        for name, pool in self.pools.items():
            other = first.setdefault(f"{sorted(pool.overrides().items())}", name)
            if other != name:
                raise ValueError(
                    f"the pools {quoted(other)} and {quoted(name)} are the same images; keep one"
                )
        return self

    @model_validator(mode="after")
    def _varied(self) -> Grid:
        for block in self.runs:
            for name, values in block.vary.items():
                if not values:
                    raise ValueError(f"vary.{name} is empty; give at least one value")
                if name in block.set_:
                    raise ValueError(f"{name} is in both set and vary; keep one of them")
        blocks = [block.name for block in self.runs]
        shown = {row.run for row in self.table} | {row.run for row in self.fidelity}
        for block in self.runs:
            others = sorted(block.vary.keys() - ({"train.labels"} if self.table else set()))
            if block.name in shown and others:
                raise ValueError(
                    f"the table shows the block {quoted(block.name)}, which varies {others[0]}, "
                    "and a row shows one experiment for each kind of labels; give each value a "
                    "block of its own"
                )
        if bool(self.fidelity) != (self.layout == "fidelity"):
            raise ValueError(
                f"the layout is {self.layout!r} and there are {len(self.fidelity)} rows of "
                "fidelity; the layout fidelity is the one for them"
            )
        for each in self.fidelity:
            if bool(each.run) == bool(each.why) or (each.run and each.run not in blocks):
                raise ValueError(
                    f"the row {quoted(each.title)} of {quoted(each.data)} has run "
                    f"{quoted(each.run)} and why {quoted(each.why)}; name a block of runs, or say "
                    "why there is none"
                )
        for row in self.table:
            if bool(row.run) != bool(row.cell) or (row.run and row.run not in blocks):
                raise ValueError(
                    f"the row {quoted(row.title)} has run {quoted(row.run)} and cell "
                    f"{quoted(row.cell)}; name a block of runs and an architecture/arm, or neither"
                )
        return self


@dataclass(frozen=True)
class Run:
    """One experiment of a grid."""

    name: str
    """The experiment's name in DVC: grid, block and varied values."""
    overrides: Overrides
    """Parameter -> value, on top of params.yaml."""
    varied: Overrides
    """The part of `overrides` in which the runs of a block differ."""
    block: str = ""
    """Name of its block."""


def names() -> list[str]:
    """Names of the grids in `grids/`."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Grid:
    """Read `grids/<name>.yaml`; raise `InputError` when it is absent or not a grid."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{quoted(name)} cannot name a grid; write NAME of a file {FOLDER}/NAME.yaml, such as "
            f"{', '.join(names()) or 'ratios'}"
        )
    path = FOLDER / f"{name}.yaml"
    try:
        return Grid.model_validate(yaml_file.read(path))
    except FileNotFoundError:
        old = _OLD_FOLDER / path.name
        if old.is_file():
            raise InputError(
                f"{old} is not read, grids now lie in {FOLDER}/; run `git mv {old} {path}`"
            ) from None
        known = ", ".join(names()) or "none"
        raise InputError(
            f"there is no {path} (grids here: {known}); name one of them or write it"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = one_line(".".join(str(part) for part in first["loc"]), 200)
        problem = one_line(first["msg"].removeprefix("Value error, "), 500)
        raise InputError(
            f"{path}: {where + ': ' if where else ''}{problem}; docs/grids.md shows a grid"
        ) from None


def runs(name: str, grid: Grid) -> list[Run]:
    """All runs of a grid in the order of its file; raise `InputError` when two names are equal."""
    expanded: list[Run] = []
    count = sum(math.prod(map(len, block.vary.values())) for block in grid.blocks())
    if count > _MOST_RUNS:
        raise InputError(
            f"{FOLDER / name}.yaml stands for {count:,} runs of at most {_MOST_RUNS:,}; vary fewer "
            "parameters"
        )
    for block in grid.blocks():
        for values in itertools.product(*block.vary.values()):
            varied = dict(zip(block.vary, values, strict=True))
            parts = [name, block.name, *(_label(key, value) for key, value in varied.items())]
            overrides = absolute({**grid.set_, **block.set_, **varied})
            run = Run("-".join(filter(None, parts)), overrides, varied, block.name)
            if not _NAME.fullmatch(run.name):
                raise InputError(
                    f"{quoted(run.name)} cannot name an experiment; use letters, digits, - and . "
                    f"in the values that {FOLDER / name}.yaml varies"
                )
            if any(run.name == other.name for other in expanded):
                raise InputError(
                    f"two runs of {FOLDER / name}.yaml are named {run.name}; give their blocks a "
                    "name each"
                )
            expanded.append(run)
    return expanded


def _label(key: str, value: Any) -> str:
    short = key.rpartition(".")[2]
    text = "+".join(map(str, value)) if isinstance(value, list) else f"{value}"
    return f"{short}-{text}".replace("+", "-").replace("/", "-")


def with_overrides(raw: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Nested parameters with the overrides applied; `raw` is left unchanged.

    Raises `InputError` when an override names a key below a plain value.
    """
    result = dict(raw)
    for key, value in overrides.items():
        *parents, last = key.split(".")
        section = result
        for parent in parents:
            below = section.get(parent, {})
            if not isinstance(below, dict):
                raise InputError(
                    f"{quoted(key)} is not a parameter: {quoted(parent)} is a value; correct "
                    "the key"
                )
            section[parent] = dict(below)
            section = section[parent]
        section[last] = value
    return result


def command_line(raw: dict[str, Any], overrides: Overrides) -> list[str]:
    """The overrides as values of DVC's `--set-param`, in Hydra's override grammar."""
    arguments = []
    for key, value in overrides.items():
        section: Any = raw
        for part in key.split("."):
            section = section.get(part, ...) if isinstance(section, dict) else ...
        arguments.append(f"{'' if section is not ... else '+'}{key}={_hydra(value)}")
    return arguments


def _hydra(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"{value}"
