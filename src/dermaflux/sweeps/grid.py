"""Grid files: the protocols of `experiments/*.yaml`, and the runs each stands for.

A grid has `set`, parameters of every run, and `runs`, a list of blocks. A block has parameters of
its own (`set`) and lists of values (`vary`) of which the product is taken. Parameters are written
as on DVC's command line: `train.seeds: [0, 1]`.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dermaflux.errors import InputError

FOLDER = Path("experiments")
Overrides = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Block(_Part):
    """Runs that share `set` and differ in `vary`."""

    name: str = ""
    """Stands in the names of the runs when blocks vary the same parameters."""
    set_: Overrides = Field(alias="set", default={})
    vary: dict[str, list[Any]] = {}


class Published(_Part):
    """A figure that a paper states, in [0, 1]; as a gain, in differences of it."""

    at: Overrides
    """Parameters of the run it belongs to."""
    over: Overrides = {}
    """For a gain: parameters of the run it is held against."""
    architecture: str
    figure: str
    value: float


class Grid(_Part):
    """A named set of experiments."""

    description: str
    source: str
    """Paper and section, or `ours`."""
    layout: Literal["ratios", "generators", "zero_shot", "low_data"] = "ratios"
    """How `dermaflux results` lays the figures out."""
    set_: Overrides = Field(alias="set", default={})
    runs: list[Block] = Field(min_length=1)
    published: list[Published] = []

    @model_validator(mode="after")
    def _varied(self) -> Grid:
        for block in self.runs:
            for name, values in block.vary.items():
                if not values:
                    raise ValueError(f"vary.{name} is empty; give at least one value")
                if name in block.set_:
                    raise ValueError(f"{name} stands in both set and vary; keep one of them")
        return self


@dataclass(frozen=True)
class Run:
    """One experiment of a grid."""

    name: str
    """The experiment's name in DVC: grid, block and varied values."""
    overrides: Overrides
    """Parameter -> value, on top of params.yaml."""
    varied: Overrides
    """Those of them that tell the run from the others of its block."""


def names() -> list[str]:
    """Names of the grids in `experiments/`."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Grid:
    """Read `experiments/<name>.yaml`; raise `InputError` when it is absent or not a grid."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = FOLDER / f"{name}.yaml"
    try:
        return Grid.model_validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(names()) or "none"
        raise InputError(
            f"there is no {path} (grids here: {known}); name one of them or write it"
        ) from None
    except YAMLError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{path} is not valid YAML ({problem}); correct that line") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"{path}: {where + ': ' if where else ''}{problem}; docs/grids.md shows a grid"
        ) from None


def runs(name: str, grid: Grid) -> list[Run]:
    """All runs of a grid in the order of its file; raise `InputError` when two have one name."""
    found: list[Run] = []
    for block in grid.runs:
        for values in itertools.product(*block.vary.values()):
            varied = dict(zip(block.vary, values, strict=True))
            parts = [name, block.name, *(_label(key, value) for key, value in varied.items())]
            run = Run("-".join(filter(None, parts)), {**grid.set_, **block.set_, **varied}, varied)
            if not _NAME.fullmatch(run.name):
                raise InputError(
                    f"{run.name!r} cannot name an experiment; use letters, digits, - and . in the "
                    f"values that {FOLDER / name}.yaml varies"
                )
            if any(run.name == other.name for other in found):
                raise InputError(
                    f"two runs of {FOLDER / name}.yaml are called {run.name}; give their blocks "
                    "names"
                )
            found.append(run)
    return found


def _label(key: str, value: Any) -> str:
    short = key.rpartition(".")[2]
    text = "+".join(map(str, value)) if isinstance(value, list) else f"{value}"
    return f"{short}-{text}".replace("+", "-").replace("/", "-")


def applied(raw: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Parameters as plain nested dictionaries with the overrides in their places.

    Raises `InputError` when an override lies under a value that has no parts.
    """
    result = dict(raw)
    for key, value in overrides.items():
        *parents, last = key.split(".")
        section = result
        for parent in parents:
            below = section.get(parent, {})
            if not isinstance(below, dict):
                raise InputError(f"{key!r} is no parameter, {parent!r} is a value; correct the key")
            section[parent] = dict(below)
            section = section[parent]
        section[last] = value
    return result


def command_line(raw: dict[str, Any], overrides: Overrides) -> list[str]:
    """The overrides as values of DVC's `--set-param`, in the grammar of Hydra."""
    written = []
    for key, value in overrides.items():
        section: Any = raw
        for part in key.split("."):
            section = section.get(part, ...) if isinstance(section, dict) else ...
        written.append(f"{'' if section is not ... else '+'}{key}={_hydra(value)}")
    return written


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
