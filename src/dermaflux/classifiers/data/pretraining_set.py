"""The images of pre-training: the training split of the corpus, the synthetic pool, or both.

Reads corpus/ (split train; validation for figures), synthetic/ and reports/rejected.json; writes
nothing. Labels of the images to learn from are not read, and nothing of the test split is.
"""

from __future__ import annotations

from dataclasses import dataclass

from dermaflux import paths
from dermaflux.classifiers.data import pixel_cache, samples, subset, training_set
from dermaflux.classifiers.data.pixel_cache import CachedPixels
from dermaflux.classifiers.data.samples import Samples
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

_COLUMNS = ("image_id", "sha256")


@dataclass(frozen=True)
class Chosen:
    """Images to learn from, before any of them is decoded: image_id -> sha256 of its bytes."""

    real: dict[str, str]
    synthetic: dict[str, str]
    rejected: int
    """Images of the pool that the audit rejected, which stay out."""

    @property
    def image_ids(self) -> list[str]:
        """Real images, then synthetic ones."""
        return [*self.real, *self.synthetic]

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return {
            "real": len(self.real),
            "synthetic": len(self.synthetic),
            "rejected": self.rejected,
        }

    def pixels(self, side: int) -> CachedPixels:
        """uint8 (N, side, side, 3) in the order of `image_ids`; decodes what the cache lacks."""
        parts = [
            pixel_cache.read(folder, "train", wanted, side)
            for folder, wanted in ((paths.CORPUS, self.real), (paths.SYNTHETIC, self.synthetic))
            if wanted
        ]
        return parts[0] if len(parts) == 1 else pixel_cache.concatenate(*parts)


def choose(images: str) -> Chosen:
    """The images that `pretrain.images` names; raises `InputError` when there are none."""
    real, synthetic, rejected = dict[str, str](), dict[str, str](), list[str]()
    if images != "synthetic":
        rows = table.metadata(paths.CORPUS, _COLUMNS, "train").sort_values("image_id")
        real = dict(zip(rows["image_id"], rows["sha256"], strict=True))
    if images != "real":
        rejected = training_set.rejected_images()
        pool = table.metadata(paths.SYNTHETIC, _COLUMNS, "train").sort_values("image_id")
        training_set.require_same_pool(pool, rejected)
        accepted = pool[~pool["image_id"].isin(rejected)]
        synthetic = dict(zip(accepted["image_id"], accepted["sha256"], strict=True))
        if not synthetic:
            raise InputError(
                f"pretrain.images is {images!r} but 0 of the {len(pool)} images in "
                f"{paths.SYNTHETIC} are left after the audit rejected {len(rejected)}; raise "
                "synthesize.images or set it to real"
            )
    return Chosen(real, synthetic, len(rejected))


def labelled(side: int, limit: int, seed: int) -> Samples:
    """About `limit` benign and malignant training images: a share of each class, by hash.

    At least one of each class, however rare it is. Raises `InputError` when one has none.
    """
    columns = (*_COLUMNS, "label")
    rows = table.metadata(paths.CORPUS, columns, "train")
    rows = rows[rows["label"].isin(CLASSES)]
    counts = subset.counts(rows, CLASSES)
    for name, count in counts.items():
        if count == 0:
            raise InputError(
                f"the training split holds 0 {name} images of {len(rows)}, and the linear probe "
                "needs benign and malignant ones; add a dataset with images of that class"
            )
    share = min(1.0, limit / len(rows)) if len(rows) else 1.0
    ids = subset.draw(rows, subset.fraction(counts, share), seed)
    return samples.load(paths.CORPUS, rows, sorted(ids), "train", side)
