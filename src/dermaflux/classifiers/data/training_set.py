"""The images of one cell: drawn from the tables, checked by a gate, then decoded.

Reads `corpus/` (splits train and validation; nothing of the test split), `synthetic/` and
`reports/audit.json`; writes nothing. The gate is handed in, because it decides no image: it refuses
a draw or lets it pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from dermaflux import paths
from dermaflux.classifiers.data import diagnoses, samples, subset
from dermaflux.classifiers.data.samples import Samples
from dermaflux.core import table
from dermaflux.core.files import read_json, reading
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted
from dermaflux.params import ENLARGED, MIXED, Arm, Params

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("image_id", "label", "diagnosis", "sha256")


class Gate(Protocol):
    """What examines a draw before any image of it is decoded."""

    def __call__(
        self, params: Params, real: list[str], synthetic: list[str], rejected: list[str]
    ) -> None:
        """Raise `InputError` when training on these image_ids would break a promise.

        `real`: of the corpus's training split; `synthetic`: of the pool; `rejected`: those of the
        pool that the audit found memorised, none where the mixture is not drawn.
        """


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
        return arm in MIXED and len(self.synthetic.image_ids) > 0

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


def load(params: Params, seed: int, gate: Gate, arms: Sequence[Arm]) -> CellImages:
    """Draw the images of the arms, pass the gate, then decode.

    Every `InputError` about counts comes first.
    """
    side = params.train.image_size
    rows = table.metadata(paths.CORPUS, _COLUMNS, "train")
    chosen = _diagnoses(params, rows)
    classes = CLASSES if chosen is None else chosen.classes
    if chosen is not None:
        print(chosen, flush=True)  # here, where the images are drawn, and so once a cell
    wanted = _real_counts(params, rows, classes)
    if params.real_fraction is None:
        real = subset.draw_real(rows, params.n_real, seed)
    else:
        real = subset.draw(rows, wanted, seed)
    total = params.synthetic_wanted(len(real)) if set(ENLARGED) & set(arms) else 0
    added = subset.proportional(total, wanted)
    pool, synthetic, rejected = rows[:0], list[str](), list[str]()
    if any(added.values()) and set(MIXED) & set(arms):
        rejected = rejected_images()
        pool = table.metadata(paths.SYNTHETIC, _COLUMNS, "train")
        require_same_pool(pool, rejected)
        _has_classes(pool, classes)
        synthetic = subset.draw_synthetic(pool, rejected, added, seed)
    gate(params, real, synthetic, rejected)
    training = samples.load(paths.CORPUS, rows, real, "train", side, classes)
    if synthetic:
        extra = samples.load(paths.SYNTHETIC, pool, synthetic, "train", side, classes)
        training = samples.concatenate(training, extra)
    validation = samples.load_split(paths.CORPUS, "validation", side, classes)[1]
    by_number = {number: added[name] for number, name in enumerate(classes)}
    return CellImages(classes, training, len(real), validation, by_number)


def find_classes(params: Params, training: pd.DataFrame) -> tuple[str, ...]:
    """What classifiers tell apart, from the metadata of the training split."""
    chosen = _diagnoses(params, training)
    return CLASSES if chosen is None else chosen.classes


def _diagnoses(params: Params, training: pd.DataFrame) -> diagnoses.DiagnosisClasses | None:
    """The diagnoses that are classes; None of labels malignancy."""
    if params.train.labels == "malignancy":
        return None
    validation = table.metadata(paths.CORPUS, ["diagnosis"], "validation")
    return diagnoses.choose(training, validation, params.train.minimum_diagnosis_images)


def _real_counts(params: Params, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    available = subset.counts(rows, classes)
    return subset.real_counts(available, params.n_real, params.real_fraction)


def _has_classes(pool: pd.DataFrame, classes: Sequence[str]) -> None:
    """Refuse a pool without diagnoses where these are the classes."""
    if subset.column(classes) == "diagnosis" and pool["diagnosis"].isna().all():
        raise InputError(
            f"labels 'diagnosis' needs synthetic images with a diagnosis but none of the "
            f"{len(pool)} in {paths.SYNTHETIC} has one; leave mixture out of train.arms, or set "
            "synthesize.prompt_source to captions, whose images take the diagnosis of the image "
            "described"
        )


def require_same_pool(pool: pd.DataFrame, rejected: Sequence[str]) -> None:
    """Refuse an audit of another pool: its memorised images would be trained on here."""
    unknown = sorted(set(rejected) - set(pool["image_id"]))
    if unknown:
        raise InputError(
            f"{paths.AUDIT_REPORT} rejects the image {quoted(unknown[0])}, which {paths.SYNTHETIC} "
            "does not hold, so it is of another pool; run `dermaflux audit`"
        )


def rejected_images() -> list[str]:
    """image_ids that the audit found to be memorised."""
    report = read_json(paths.AUDIT_REPORT, "`dermaflux audit`", "rejected")
    with reading(paths.AUDIT_REPORT, "`dermaflux audit`"):
        if not all(isinstance(name, str) for name in report["rejected"]):
            raise ValueError("rejected is not a list of image ids")
        return list(report["rejected"])
