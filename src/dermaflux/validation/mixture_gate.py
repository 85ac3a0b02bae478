"""The gate before training: the images drawn for one cell have to pass the suite `mixture`.

Reads metadata of `corpus/` and `synthetic/` (of the validation and test splits only names and
hashes, never an image, label or diagnosis). It decides no byte of what `train` writes, so it is
handed to that stage by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.core import table
from dermaflux.params import Params
from dermaflux.validation import cached_check, corpus_suite, training_suites
from dermaflux.validation.training_suites import HELD_OUT, MIXTURE

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (*MIXTURE, "diagnosis")


def check(
    params: Params, real: Sequence[str], synthetic: Sequence[str], rejected: Sequence[str]
) -> None:
    """Raise `InputError` when the drawn images break a promise of the suite.

    `real` are image_ids of the corpus's training split, `synthetic` of the pool, and `rejected`
    those of the pool that the audit found memorised.
    """
    import pandas as pd

    rows = table.metadata(paths.CORPUS, _COLUMNS, "train")
    pool = table.metadata(paths.SYNTHETIC, _COLUMNS, "train") if synthetic else rows[:0]
    held_out = [table.metadata(paths.CORPUS, HELD_OUT, split) for split in ("validation", "test")]
    frame = training_suites.with_derived_mixture(
        _of(rows, real), _of(pool, synthetic), pd.concat(held_out), rejected
    )
    promises = training_suites.mixture_promises(
        params,
        "mixture" if synthetic else "real",
        corpus_suite.as_published(params),
        {"real": len(real), "synthetic": len(synthetic)} if params.real_fraction else None,
    )
    cached_check.check("mixture", frame, promises)


def _of(rows: pd.DataFrame, image_ids: Sequence[str]) -> pd.DataFrame:
    return rows[rows["image_id"].isin(list(image_ids))]
