"""The images of one cell: drawn from the tables, held to the border `mixture`, then decoded.

Reads `corpus/` (splits train and validation; of the test split only names and hashes, to prove that
training shares nothing with it, never a picture, label or diagnosis), `synthetic/` and
`reports/audit.json`; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.classifiers.data import diagnoses, samples, subset
from dermaflux.classifiers.data.samples import Samples
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import ENLARGED, Params
from dermaflux.validation.training_suites import HELD_OUT, MIXTURE

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (*MIXTURE, "diagnosis")


@dataclass(frozen=True)
class CellImages:
    """What the arms of a cell train and select on."""

    classes: tuple[str, ...]
    training: Samples
    """Real images, then the synthetic ones of the mixture, if an arm asks for it."""
    n_real: int
    """How many of them are real."""
    validation: Samples
    added: Mapping[int, int]
    """Class number -> synthetic images of the mixture, whether or not it is trained."""

    @cached_property
    def real(self) -> Samples:
        """The real training images."""
        return self.training.part(0, self.n_real)

    @cached_property
    def synthetic(self) -> Samples:
        """The synthetic training images; none where no arm asks for them."""
        return self.training.part(self.n_real, len(self.training.image_ids))

    def has_synthetic(self, arm: str) -> bool:
        """Whether synthetic images take part in an arm; at ratio 0 the mixture is the real arm."""
        return arm == "mixture" and len(self.synthetic.image_ids) > 0

    def of(self, arm: str) -> Samples:
        """Training images of an arm, each once."""
        return self.training if self.has_synthetic(arm) else self.real

    def digests(self, arm: str) -> list[str]:
        """Hashes of the images that an arm trains and selects on."""
        real, synthetic, validation = self._digests
        return [real, validation] + [synthetic] * self.has_synthetic(arm)

    @cached_property
    def _digests(self) -> tuple[str, str, str]:
        # Once a cell, not once an arm: the paper's images are gigabytes.
        return self.real.digest(), self.synthetic.digest(), self.validation.digest()


def load(params: Params, seed: int) -> CellImages:
    """Draw the images, then decode them; every `InputError` about counts comes first."""
    side, arms = params.train.image_size, params.train.arms
    rows = table.metadata(paths.CORPUS, _COLUMNS, "train")
    classes = _classes(params, rows)
    wanted = _real_counts(params, rows, classes)
    if params.real_fraction is None:
        real = subset.draw_real(rows, params.n_real, seed)
    else:
        real = subset.draw(rows, wanted, seed)
    total = params.synthetic_wanted(len(real)) if set(ENLARGED) & set(arms) else 0
    added = subset.proportional(total, wanted)
    pool, drawn, rejected = rows[:0], list[str](), list[str]()
    if any(added.values()) and "mixture" in arms:
        rejected = _rejected()
        pool = table.metadata(paths.SYNTHETIC, _COLUMNS, "train")
        _has_classes(pool, classes)
        drawn = subset.draw_synthetic(pool, rejected, added, seed)
    _cross_border(params, _of(rows, real), _of(pool, drawn), rejected)
    training = samples.load(paths.CORPUS, rows, real, "train", side, classes)
    if drawn:
        training += samples.load(paths.SYNTHETIC, pool, drawn, "train", side, classes)
    validation = samples.load_split(paths.CORPUS, "validation", side, classes)[1]
    numbered = {number: added[name] for number, name in enumerate(classes)}
    return CellImages(classes, training, len(real), validation, numbered)


def _classes(params: Params, training: pd.DataFrame) -> tuple[str, ...]:
    if params.train.labels == "malignancy":
        return subset.CLASSES
    validation = table.metadata(paths.CORPUS, ["diagnosis"], "validation")
    chosen = diagnoses.choose(training, validation, params.train.minimum_diagnosis_images)
    print(f"train: {chosen}", flush=True)
    return chosen.classes


def _real_counts(params: Params, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    if params.real_fraction is None:
        return subset.balanced(params.n_real)
    return subset.fraction(subset.counts(rows, classes), params.real_fraction)


def _has_classes(pool: pd.DataFrame, classes: Sequence[str]) -> None:
    """Refuse a pool without diagnoses where these are the classes."""
    if subset.column(classes) == "diagnosis" and pool["diagnosis"].isna().all():
        raise InputError(
            f"labels 'diagnosis' needs synthetic images with a diagnosis but none of the "
            f"{len(pool)} in {paths.SYNTHETIC} has one; leave mixture out of train.arms, or set "
            "synthesize.prompt_source to captions, whose images take the diagnosis of the image "
            "described"
        )


def _of(rows: pd.DataFrame, image_ids: Sequence[str]) -> pd.DataFrame:
    return rows[rows["image_id"].isin(list(image_ids))]


def _cross_border(
    params: Params, real: pd.DataFrame, synthetic: pd.DataFrame, rejected: Sequence[str]
) -> None:
    """Hold the drawn images to the promises of the suite `mixture`, before any is decoded."""
    import pandas as pd

    from dermaflux.validation import cached_check, corpus_suite, training_suites

    held_out = [table.metadata(paths.CORPUS, HELD_OUT, split) for split in ("validation", "test")]
    frame = training_suites.with_derived_mixture(real, synthetic, pd.concat(held_out), rejected)
    promises = training_suites.mixture_promises(
        params,
        "mixture" if len(synthetic) else "real",
        corpus_suite.as_published(params),
        {"real": len(real), "synthetic": len(synthetic)} if params.real_fraction else None,
    )
    cached_check.check("mixture", frame, promises)


def _rejected() -> list[str]:
    """image_ids that the audit found to be memorised."""
    try:
        report = json.loads(paths.AUDIT_REPORT.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no {paths.AUDIT_REPORT}; run `dermaflux audit`") from None
    rejected: list[str] = report["rejected"]
    return rejected
