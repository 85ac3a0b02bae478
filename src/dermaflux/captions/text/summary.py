"""Figures of a finished caption table: faults, repetition, lengths and agreement.

Reads a caption table; writes `figures.json` beside its shards, where the stage `validate` reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.captions.lesion import agreement
from dermaflux.captions.text import lengths
from dermaflux.captions.text.quality import FAULTS
from dermaflux.core import table
from dermaflux.core.files import write_json

if TYPE_CHECKING:
    import pandas as pd

FILE = "figures.json"
_COLUMNS = ("image_id", "caption", "captioner", "label", "flags")
_MEASURED = ("asymmetry", "border_irregularity", "colours")


def write(folder: Path) -> dict[str, Any]:
    """Write the figures of a table folder into it and return them."""
    figures = summarise(table.metadata(folder, [*_COLUMNS, *_MEASURED, "held_out"]))
    write_json(folder / FILE, figures)
    return figures


def summarise(captions: pd.DataFrame) -> dict[str, Any]:
    """Figures of all captions; agreement only where words and numbers have different origins."""
    flags = captions["flags"].dropna().str.split(",")
    counts = flags.explode().value_counts()
    written = captions[~captions["captioner"].isin(("measured", "label"))]
    words = captions["caption"].str.split().str.len()
    out: dict[str, Any] = {
        "captions": len(captions),
        "distinct": int(captions["caption"].nunique()),
        "held_out": int(captions["held_out"].fillna(False).astype(bool).sum()),
        "flagged": len(flags),
        "faults": {name: int(counts.get(name, 0)) for name in FAULTS},
        "words": lengths.figures(words.tolist()),
    }
    if len(written) and written[list(_MEASURED)].notna().any(axis=None):
        out["agreement"] = agreement.figures(written[written["flags"].isna()])
    return out
