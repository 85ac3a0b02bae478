"""Captions of at most 18 words from what `dermaflux caption` measured, to be imported.

    python benchmarks/short_captions.py --captions captions --output short.csv

Class, asymmetry, border and colours in the words that the audit's group `control` reads, each with
a full stop, since it reads words of degree to the end of a sentence, and nothing around them: a
U-ViT computes every token of a description in every block, so these make trainings on a CPU nearly
twice as quick. `caption.captioner: imported` with `caption.imported: short.csv` reads them.
"""

from __future__ import annotations

import argparse
import bisect
import re
from pathlib import Path
from typing import Any

import pandas as pd

from dermaflux.captions.lesion.abc_rule import REFERENCE_COLOURS
from dermaflux.captions.lesion.measured import ASYMMETRY_LIMITS, BORDER_LIMITS

ASYMMETRY = ("symmetrical", "slight asymmetry", "notable asymmetry")
BORDER = ("smooth border", "few small notches on the border", "irregular border", "jagged border")

_COLOUR = re.compile("|".join(REFERENCE_COLOURS))


def describe(row: Any) -> str:
    """Of a row of captions/ by the captioner `measured`; colours are in the order of its text."""
    parts = [f"{row.label} lesion"]
    if pd.notna(row.asymmetry) and pd.notna(row.border_irregularity):
        parts.append(ASYMMETRY[bisect.bisect(ASYMMETRY_LIMITS, row.asymmetry)])
        parts.append(BORDER[bisect.bisect(BORDER_LIMITS, row.border_irregularity)])
    if colours := _COLOUR.findall(row.caption):
        parts.append(", ".join(colours))
    return ". ".join(parts) + "."


def main() -> None:
    """Write `image_id` and `caption` of every image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=Path, default=Path("captions"))
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    frame = pd.concat(map(pd.read_parquet, sorted(arguments.captions.glob("*.parquet"))))
    frame["caption"] = [describe(row) for row in frame.itertuples()]
    frame[["image_id", "caption"]].to_csv(arguments.output, index=False)


if __name__ == "__main__":
    main()
