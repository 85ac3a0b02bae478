"""The images of one cell: drawn from the tables, checked by a gate, then decoded.

Reads `corpus/` (splits train and validation; nothing of the test split), `synthetic/` and
`reports/rejected.json`; writes nothing. The gate is handed in, because it decides no image: it
refuses a draw or lets it pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dermaflux import paths
from dermaflux.classifiers.data import diagnoses, real_draws, samples, subset
from dermaflux.classifiers.data.real_draws import RealDraws
from dermaflux.classifiers.data.samples import Samples
from dermaflux.core import matching, table
from dermaflux.core.arrays import Array
from dermaflux.core.files import read_json, reading
from dermaflux.core.seeds import derived_seed
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted
from dermaflux.params import MIXED, Params

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("image_id", "label", "diagnosis", "sha256")
_DRAWN = (*real_draws.COLUMNS, "sha256", "width", "height")


class Gate(Protocol):
    """What examines a draw before any image of it is decoded."""

    def __call__(
        self, params: Params, real: list[str], synthetic: list[str], rejected: list[str]
    ) -> None:
        """Raise `InputError` when training on these image_ids would break a promise.

        `real`: of the corpus's training split; `synthetic`: of the pool; `rejected`: those of the
        pool that the audit found memorised, none where the mixture is not drawn. Where an arm
        trains on more real images, it is called again with all of these, and their number as
        n_real.
        """


@dataclass(frozen=True)
class CellImages:
    """What the arms of a cell train and select on."""

    classes: tuple[str, ...]
    corpus: Samples
    """Real training images of all arms."""
    draws: Mapping[str, Array]
    """Arm -> (M,) indices into `corpus`; arms that are not listed have those of `real`."""
    pool: Samples
    """Synthetic images of the mixture; none where no arm asks for them."""
    validation: Samples
    added: Mapping[int, int]
    """Class number -> synthetic images of the mixture, whether or not it is trained."""
    seed: int
    shortages: Mapping[str, str]
    """As `real_draws.RealDraws.shortages`."""

    def real(self, arm: str) -> Samples:
        """The real training images of an arm."""
        indices = self.draws[self._draw(arm)]
        return self.corpus.take(indices) if len(indices) < len(self.corpus.labels) else self.corpus

    def synthetic(self, arm: str) -> Samples:
        """The synthetic training images of an arm."""
        if not self.has_synthetic(arm):
            return self.pool.part(0, 0)
        if arm != "shuffled":
            return self.pool
        draw = np.random.default_rng(derived_seed(self.seed, "shuffled labels"))
        return replace(self.pool, labels=draw.permutation(self.pool.labels))

    def has_synthetic(self, arm: str) -> bool:
        """Whether synthetic images take part in an arm; at ratio 0 the mixture is the real arm."""
        return arm in MIXED and len(self.pool.image_ids) > 0

    def of(self, arm: str) -> Samples:
        """Training images of an arm, each once: real ones, then synthetic ones."""
        if not self.has_synthetic(arm):
            return self.real(arm)
        return samples.concatenate(self.real(arm), self.synthetic(arm))

    def digests(self, arm: str) -> list[str]:
        """Hashes of the images that an arm trains and selects on, with their labels."""
        shown = [
            self._digest(f"real images of {self._draw(arm)}", self.real(arm)),
            self._digest("validation", self.validation),
        ]
        if self.has_synthetic(arm):
            shuffled = "shuffled " * (arm == "shuffled")
            shown.append(self._digest(f"{shuffled}synthetic images", self.synthetic(arm)))
        return shown

    def _draw(self, arm: str) -> str:
        return arm if arm in self.draws else "real"

    def _digest(self, name: str, images: Samples) -> str:
        # Once a cell, not once an arm: the paper's images are gigabytes.
        if name not in self._digests:
            self._digests[name] = images.digest()
        return self._digests[name]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class RealImages:
    """The real images of the arms of a cell, drawn and not yet decoded."""

    classes: tuple[str, ...]
    rows: pd.DataFrame
    """Metadata of the training split."""
    image_ids: list[str]
    """Those of the largest draw, class after class."""
    draws: RealDraws
    said: tuple[str, ...]
    """Sentences on what the draw leaves out."""

    def indices(self, arm: str) -> Array:
        """(M,) int64 positions in `image_ids`; arms that have no draw have that of `real`."""
        counts = self.draws.counts.get(arm, self.draws.counts["real"])
        return subset.firsts(self.draws.largest, counts)

    def of(self, arm: str) -> pd.DataFrame:
        """Metadata of the real images of an arm, in the order of its draw."""
        chosen = [self.image_ids[index] for index in self.indices(arm)]
        return self.rows.set_index("image_id").loc[chosen].reset_index()


def draw(params: Params, seed: int, arms: Sequence[str]) -> RealImages:
    """Draw the real images of the arms; raises `InputError` where there are too few."""
    rows = table.metadata(paths.CORPUS, _DRAWN, "train")
    chosen = _diagnoses(params, rows)
    classes = CLASSES if chosen is None else chosen.classes
    draws = real_draws.choose(params, real_draws.available(params, rows, classes), arms)
    said = () if chosen is None else (str(chosen),)
    if params.train.draw == "matched":
        pairs = matching.pairs(rows, params.train.match_by, seed)
        order, said = pairs.image_ids, (*said, pairs.said("train.draw", "training"))
    else:
        order = subset.ordered(rows, classes, seed)
    return RealImages(classes, rows, subset.first(order, draws.largest), draws, said)


def judges(params: Params) -> matching.Pairs | None:
    """The validation images that epochs and classifiers are compared on; None: all of the split.

    Raises `InputError` where the matched law leaves none.
    """
    if params.train.draw == "pooled":
        return None
    rows = table.metadata(paths.CORPUS, real_draws.COLUMNS, "validation")
    return real_draws.judges(rows, params.train)


def load(params: Params, seed: int, gate: Gate, arms: Sequence[str]) -> CellImages:
    """Draw the images of the arms, pass the gate, then decode.

    Every `InputError` about counts comes first. Prints what the training split is too small for.
    """
    side = params.train.image_size
    drawn = draw(params, seed, arms)
    classes, draws, corpus = drawn.classes, drawn.draws, drawn.image_ids
    compared = judges(params)
    said = (*drawn.said, *([compared.said("train.draw", "validation")] if compared else ()))
    for sentence in (*said, *draws.shortages.values()):
        print(sentence, flush=True)  # here, where the images are drawn, and so once a cell
    indices = {arm: drawn.indices(arm) for arm in draws.counts}
    real = [corpus[index] for index in indices["real"]]
    pool, synthetic, rejected = drawn.rows[:0], list[str](), list[str]()
    if any(draws.added.values()) and set(MIXED) & set(arms):
        rejected = rejected_images()
        pool = table.metadata(paths.SYNTHETIC, _COLUMNS, "train")
        require_same_pool(pool, rejected)
        _has_classes(pool, classes)
        synthetic = subset.draw_synthetic(pool, rejected, draws.added, seed)
    gate(params, real, synthetic, rejected)
    if len(corpus) > len(real):  # the largest draw contains the others
        gate(params.model_copy(update={"n_real": len(corpus)}), corpus, [], [])
    training = samples.load(paths.CORPUS, drawn.rows, corpus, "train", side, classes)
    extra = training.part(0, 0)
    if synthetic:
        extra = samples.load(paths.SYNTHETIC, pool, synthetic, "train", side, classes)
    wanted = compared.listed if compared else None
    validation = samples.load_split(paths.CORPUS, "validation", side, classes, wanted)[1]
    added = {number: draws.added[name] for number, name in enumerate(classes)}
    return CellImages(classes, training, indices, extra, validation, added, seed, draws.shortages)


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
            f"{paths.REJECTED} rejects the image {quoted(unknown[0])}, which {paths.SYNTHETIC} "
            "does not hold, so it is of another pool; run `dermaflux audit`"
        )


def rejected_images() -> list[str]:
    """image_ids that the audit found to be memorised."""
    report = read_json(paths.REJECTED, "`dermaflux audit`", "rejected")
    with reading(paths.REJECTED, "`dermaflux audit`"):
        if not all(isinstance(name, str) for name in report["rejected"]):
            raise ValueError("rejected is not a list of image ids")
        return list(report["rejected"])
