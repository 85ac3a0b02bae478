"""Which real images each arm trains on, and which arms the training split is too small for.

Pure functions on metadata and counts, and the file `shortages.json` of a cell, which tells later
stages. The arms' draws are nested: of every class, each takes the first images of one order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.classifiers.data import subset
from dermaflux.core import matching
from dermaflux.core.files import damaged, read_json, write_json
from dermaflux.errors import InputError
from dermaflux.params import ENLARGED, Params, Train

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image_id", "label", "diagnosis", "source", "scale", "modality", "skin_tone")
"""What a draw may depend on."""
SHORTAGES = "shortages.json"


@dataclass(frozen=True)
class RealDraws:
    """Real training images of the arms of a cell."""

    counts: Mapping[str, Mapping[str, int]]
    """Arm -> class -> images, `real` first; arms that are not listed have those of `real`."""
    added: Mapping[str, int]
    """Class -> images by which the enlarged arms exceed the real one; 0 where there is none."""
    shortages: Mapping[str, str]
    """Arm -> why it cannot be, with both numbers. A size of the curve is then left out, and
    `more_real` is the real arm."""

    @property
    def largest(self) -> dict[str, int]:
        """Class -> images of the largest draw, which contains the others."""
        return {
            name: max(counts[name] for counts in self.counts.values())
            for name in self.counts["real"]
        }


def available(params: Params, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    """Class -> images of the training split `rows` (columns `COLUMNS`) that a draw can take."""
    if params.train.draw == "matched":
        return dict.fromkeys(classes, matching.count(rows, params.train.match_by))
    return subset.counts(rows, classes)


def check(params: Params, held: Mapping[str, int]) -> None:
    """Raise `InputError` when `held`, what `available` found, is too few for n_real."""
    if params.train.draw == "pooled":
        subset.check_real(held, params.n_real)
        return
    pairs = min(held.values())
    if pairs < params.n_real // 2:
        raise InputError(
            f"n_real {params.n_real} under train.draw matched needs {params.n_real // 2:,} pairs "
            f"of a benign and a malignant image of the same {matching.words(params.train.match_by)}"
            f" but the training split holds {pairs:,}; lower n_real to {2 * pairs}, shorten "
            "train.match_by, or set train.draw to pooled"
        )


def judges(rows: pd.DataFrame, train: Train) -> matching.Pairs:
    """The pairs of the validation split `rows` under a matched draw, the same for every cell.

    Raises `InputError` where there is none.
    """
    found = matching.pairs(rows, train.match_by, "validation")
    if not len(found):
        raise InputError(
            f"train.draw matched needs a benign and a malignant validation image of the same "
            f"{matching.words(train.match_by)} but none of the {len(rows):,} has a partner; raise "
            "ingest.validation_fraction, shorten train.match_by, or set train.draw to pooled"
        )
    return found


def choose(params: Params, available: Mapping[str, int], arms: Sequence[str]) -> RealDraws:
    """The draws of these arms from a training split with the `available` images of each class.

    Raises `InputError` when it is too small for the arm `real`.
    """
    if params.real_fraction is None:
        check(params, available)
        real = subset.balanced(params.n_real)
    else:
        real = subset.fraction(available, params.real_fraction)
    split = "training split" if params.train.draw == "pooled" else "matched training split"
    counts: dict[str, Mapping[str, int]] = {"real": real}
    shortages: dict[str, str] = {}
    total = params.synthetic_wanted(sum(real.values())) if set(ENLARGED) & set(arms) else 0
    added = subset.proportional(total, real)
    if "more_real" in arms:
        left = {name: available[name] - count for name, count in real.items()}
        name = _scarcest(added, left)
        if name is None:
            counts["more_real"] = {label: real[label] + added[label] for label in real}
        else:
            drawn = "n_real" if params.real_fraction is None else "real_fraction"
            shortages["more_real"] = (
                f"more_real needs {added[name]:,} further {name} images but the {split} "
                f"holds {left[name]:,} beyond {drawn}, so it adds none and is the real arm"
            )
    for arm, images in params.curve_sizes().items():
        wanted = dict.fromkeys(real, images)
        if arm == "real" or arm not in arms:
            continue
        name = _scarcest(wanted, available)
        if name is None:
            counts[arm] = wanted
        else:
            shortages[arm] = (
                f"{arm} needs {images:,} {name} images but the {split} holds "
                f"{available[name]:,}, so this size of train.curve is left out"
            )
    return RealDraws(counts, added, shortages)


def _scarcest(wanted: Mapping[str, int], held: Mapping[str, int]) -> str | None:
    """The class of which most images are lacking; None where none is."""
    name = max(wanted, key=lambda label: wanted[label] - held[label])
    return name if wanted[name] > held[name] else None


def write(shortages: Mapping[str, str], cell: Path) -> None:
    """The file of a cell's folder; none where nothing is short."""
    if shortages:
        write_json(cell / SHORTAGES, dict(shortages))


def read(cell: Path) -> dict[str, str]:
    """Arm -> its shortage, of a cell that `train` wrote."""
    path = cell / SHORTAGES
    if not path.is_file():
        return {}
    content = read_json(path, "`dvc repro train`")
    if not all(isinstance(sentence, str) for sentence in content.values()):
        raise damaged(path, "it holds something else than sentences", "`dvc repro train`")
    return content
