"""Which published cell a run is, by the protocols in `grids/`. Pure but for reading these files.

A grid file holds what a paper states and the parameters of the run behind each figure, once for
`dermaflux queue`, for `dermaflux results` and for the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermaflux.core.files import damaged
from dermaflux.params import yaml_file

FOLDER = Path("grids")
PAPERS = {
    "DermaFlux": ("table2", "figure4", "table3"),
    "DerMAE": ("dermae_table1",),
    "VAP-Diffusion": ("vap_table1", "vap_table2", "vap_table3"),
}
"""Paper -> the protocols of its tables and figures, in its order."""
CELLS_ALONE = (
    "train.architectures",
    "train.arms",
    "train.seeds",
    "promote.architecture",
    "zero_shot.run",
)
"""Parameters that say which cells are trained, and not what one is."""


def read(name: str) -> dict[str, Any] | None:
    """The content of a protocol; None where the checkout has no such file.

    Raises `InputError` for a file that is no YAML mapping.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        return None
    content = yaml_file.read(path)
    if not isinstance(content, dict):
        raise damaged(path, "it holds no mapping", f"`git checkout {path}`")
    return content


def blocks(protocol: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Blocks of runs: each with the name, what it sets (the grid's too) and what it varies."""
    shared = protocol.get("set", {})
    return [
        {
            "name": block.get("name", ""),
            "set": {**shared, **block.get("set", {})},
            "vary": block.get("vary", {}),
        }
        for block in protocol.get("runs", [])
    ]


def runs_it(parameters: Mapping[str, Any], block: Mapping[str, Any]) -> bool:
    """Whether nested `parameters` are those of one of a block's runs."""
    fixed = {key: value for key, value in block["set"].items() if key not in block["vary"]}
    return has(parameters, fixed) and all(
        _value(parameters, key) in values for key, values in block["vary"].items()
    )


def has(parameters: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether nested `parameters` have the values of `a.b: value`, but for `CELLS_ALONE`."""
    return all(
        _value(parameters, key) == value for key, value in wanted.items() if key not in CELLS_ALONE
    )


def _value(parameters: Mapping[str, Any], key: str) -> Any:
    section: Any = parameters
    for part in key.split("."):
        section = section.get(part) if isinstance(section, Mapping) else None
    return section
