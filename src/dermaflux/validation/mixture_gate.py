"""The gate before training: the images drawn for one cell have to pass the suite `mixture`.

Reads metadata of corpus/ and synthetic/ (of the validation and test splits identities only, never
an image, label or diagnosis). Writes nothing but the cache of passed checks, see `cached_check`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.core import table
from dermaflux.params import Params
from dermaflux.validation import cached_check
from dermaflux.validation.corpus_suite import leaking_splits
from dermaflux.validation.mixture_suite import HELD_OUT, MIXTURE, checks, with_derived_columns

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (*MIXTURE, "diagnosis")


def check(
    params: Params, real: Sequence[str], synthetic: Sequence[str], rejected: Collection[str]
) -> None:
    """Check a draw before any of its images is decoded.

    `real`: image_ids of the corpus's training split; `synthetic`: of the pool; `rejected`: those
    that the audit found memorised. Raises `InputError` naming the first failed check and rows;
    prints a warning where the policy tolerates a failure.
    """
    import pandas as pd

    corpus = table.metadata(paths.CORPUS, _COLUMNS, "train")
    pool = table.metadata(paths.SYNTHETIC, _COLUMNS, "train") if synthetic else corpus[:0]
    held_out = [table.metadata(paths.CORPUS, HELD_OUT, split) for split in ("validation", "test")]
    frame = with_derived_columns(
        _rows(corpus, real), _rows(pool, synthetic), pd.concat(held_out), rejected
    )
    counts = {"real": len(real), "synthetic": len(synthetic)} if params.real_fraction else None
    arm = "mixture" if synthetic else "real"
    cached_check.check("mixture", frame, checks(params, arm, leaking_splits(params), counts))


def _rows(frame: pd.DataFrame, image_ids: Sequence[str]) -> pd.DataFrame:
    return frame[frame["image_id"].isin(list(image_ids))]
