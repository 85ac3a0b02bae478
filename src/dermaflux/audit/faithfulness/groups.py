"""Four groups of figures of one pool: control, separability, coverage and artefacts.

Reads images of the pool and of real ones for those that features do not give, and captions; writes
`separability.png` where a folder for it is given. A group that cannot be measured says why in its
place, and the others stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dermaflux.audit import features, trunks
from dermaflux.audit.faithfulness import artefacts, control, coverage, image_text, separability
from dermaflux.audit.faithfulness.separability import Part, Told
from dermaflux.audit.fidelity.comparison import ENOUGH
from dermaflux.audit.image_sets import ImageSet, sample
from dermaflux.audit.interval import missing
from dermaflux.audit.memorisation import copies
from dermaflux.audit.memorisation.neighbours import neighbours, orientations
from dermaflux.audit.memorisation.rejection import photographs_of
from dermaflux.captions.lesion.measured import measure
from dermaflux.core import table
from dermaflux.core.arrays import Array
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dermaflux.audit.features import AuditedFeatures
    from dermaflux.audit.image_sets import AuditedImages
    from dermaflux.params import Audit

MOST = 200
"""Images of either side, by the hash of their image_id, in which artefacts are sought."""
_NEAREST = 3  # images of the pool that an image is compared with for repeats
Json = dict[str, Any]


@dataclass(frozen=True)
class Examined:
    """What the audit has of the images already."""

    images: AuditedImages
    seen: AuditedFeatures
    nearest: Array
    """(N + H,) row of the training image nearest to each of the pool and of H held-out ones."""
    settings: Audit
    captions: Path
    """Folder of the corpus's captions, which need not be there."""
    wanted: coverage.Wanted = None
    """`synthesize.wanted`."""


def report(given: Examined, figures: Path | None = None) -> Json:
    """The keys of `reports/audit.json`; `separability.png` is written to the folder `figures`."""
    return {
        "control": _control(given),
        "separability": _separability(given, figures),
        "coverage": _coverage(given),
        "artefacts": _artefacts(given),
    }


def _control(given: Examined) -> Json:
    most = given.settings.control_images
    if not most:
        return missing("audit.control_images is 0")
    folder, pool, split = given.images.pool
    names = list(pool["label"].unique())
    chosen = pd.concat([sample("control", pool[pool["label"] == name], most) for name in names])
    chosen = chosen.sort_values("image_id")
    texts, labels = chosen["prompt"].fillna("").tolist(), chosen["label"].tolist()
    if not any(texts):
        return missing("the images of the pool have no prompts")
    ids = chosen["image_id"].tolist()
    found = {
        name: control.values(measure(image)) for name, image in table.decoded(folder, ids, split)
    }
    seen = [found[name] for name in ids]
    classes = [name for name in CLASSES if name in names]
    shuffled = control.permuted(texts, labels)
    return {
        "synthetic": control.report(texts, labels, seen, classes),
        "permuted": control.report(shuffled, labels, seen, classes),
        "real": _own_captions(given, classes),
        "images": len(pool),
        **_image_text(given, chosen),
    }


def _own_captions(given: Examined, classes: Sequence[str]) -> Json:
    """Of real images, whose values `caption` measured."""
    reference, known = _captions(given)
    if known is None:
        return missing("the corpus has no captions; run the stage caption")
    numbers = known.rename(columns={"border_irregularity": "border"})[list(control.ATTRIBUTES)]
    measured = numbers.astype(float).astype(object).where(numbers.notna(), None)
    texts, labels = known["caption"].fillna("").tolist(), known["label"].tolist()
    return {
        "reference": reference,
        **control.report(texts, labels, measured.to_dict("records"), classes),
    }


def _captions(given: Examined) -> tuple[str, pd.DataFrame | None]:
    """A split of real images, test where there is one, and their captions; None without any."""
    reference, rows = ("test", given.images.test.rows)
    if not len(rows):
        reference, rows = ("train", given.images.training.rows)
    if not any(given.captions.glob("*.parquet")):
        return reference, None
    columns = ["image_id", "caption", "asymmetry", "border_irregularity", "colours"]
    captions = table.metadata(given.captions, columns).drop_duplicates("image_id")
    return reference, rows[["image_id", "label"]].merge(captions, on="image_id")


def _image_text(given: Examined, chosen: pd.DataFrame) -> Json:
    """Scores of the same images, and of real ones with their captions; none where not asked for."""
    settings = given.settings
    if settings.image_text is None:
        return {}
    try:
        side, score = image_text.open_model(settings)
    except InputError as error:  # what rejects images does not depend on it
        return {"image_text": {"model": settings.image_text, "synthetic": missing(str(error))}}
    reference, captions = _captions(given)
    pool = given.images.pool._replace(rows=chosen.rename(columns={"prompt": "caption"}))
    kinds = {"synthetic": pool}
    if captions is not None:
        most = sample("image and text", captions, 2 * settings.control_images)
        kinds["real"] = ImageSet(given.images.training.folder, most, reference)
    found: Json = {"model": settings.image_text}
    for kind, (folder, rows, split) in kinds.items():
        by_id = rows.set_index("image_id")
        ids = by_id.index.tolist()
        # The table streams in its own order.
        order = [name for name, _ in table.decoded(folder, ids, split, side)]
        images = (image for _, image in table.decoded(folder, ids, split, side))
        texts = by_id.loc[order, "caption"].fillna("").tolist()
        found[kind] = image_text.excess(*score(images, texts), by_id.loc[order, "label"].tolist())
    return {"image_text": found}


def _separability(given: Examined, figures: Path | None) -> Json:
    images, seen = given.images, given.seen
    parts, kept = [], []
    for of_kind, points, photographs in (
        (images.pool, seen.pool.points, _digests(images.pool.rows).factorize()[0]),
        (images.training, seen.training.points, photographs_of(images.training.rows)),
        (images.test, seen.test.points, np.arange(len(images.test.rows))),
    ):
        kept.append(_kept(len(points)))
        parts.append(Part(points, of_kind.rows["label"].to_numpy(), photographs).where(kept[-1]))
    measured, told = separability.report(*parts)
    if figures is not None and told:
        _draw(given, kept[0], kept[1], told, figures / "separability.png")
    return {"trunk": given.settings.trunk, **measured}


def _digests(pool: pd.DataFrame) -> pd.Series[str]:
    """Equal for images of equal bytes."""
    return pool["sha256"].fillna(pool["image_id"])


def _kept(count: int) -> Array:
    """Rows that the regressions see."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(count)
    kept: Array = np.sort(order[: separability.MOST])
    return kept


def _draw(given: Examined, ours: Array, theirs: Array, told: dict[str, Told], path: Path) -> None:
    from dermaflux.audit.faithfulness import mean_images

    small = trunks.pixels()
    pool, training = (
        each._replace(rows=each.rows.iloc[chosen])
        for each, chosen in ((given.images.pool, ours), (given.images.training, theirs))
    )
    if given.settings.features == "pixels":
        seen = given.seen.pool.points[ours], given.seen.training.points[theirs]
    else:
        seen = (features.extract(*pool, small).points, features.extract(*training, small).points)
    synthetic, real = (trunks.from_pixels(points) for points in seen)
    labels, real_labels = pool.rows["label"].to_numpy(), training.rows["label"].to_numpy()
    rows = {
        name: mean_images.pictures(
            synthetic[_of(labels, name)], real[_of(real_labels, name)], found
        )
        for name, found in told.items()
    }
    mean_images.draw(rows, path)


def _of(labels: Array, name: str) -> Array:
    return labels == name if name in CLASSES else np.ones(len(labels), bool)


def _coverage(given: Examined) -> Json:
    pool, training, held_out = (
        each.rows for each in (given.images.pool, given.images.training, given.images.held_out)
    )
    near, of_held_out = given.nearest[: len(pool)], given.nearest[len(pool) :]
    return coverage.report(pool, training, near, held_out, of_held_out, given.wanted)


def _artefacts(given: Examined) -> Json:
    pool, training = given.images.pool.rows, given.images.training.rows
    sizes = pool["scale"].dropna()
    side = int(sizes.mode().iloc[0]) if len(sizes) else None
    asked = training[training["label"].isin(set(pool["label"]) & set(CLASSES) or CLASSES)]
    same = asked[asked["scale"] == side]
    # Real images of other sizes would be resized, which blurs the finest grids of theirs.
    real = sample("artefacts", same if len(same) >= ENOUGH else asked, MOST)
    ours = sample("artefacts", pool, MOST)
    marks = [
        [
            artefacts.marks(image)
            for _, image in table.decoded(kind.folder, list(rows["image_id"]), kind.split, side)
        ]
        for kind, rows in ((given.images.pool, ours), (given.images.training, real))
    ]
    return {
        "reference": given.images.training.split or "train and validation",
        "side": side,
        "resized_reference_images": int((real["scale"] != side).sum()),
        "marks": artefacts.compare(*marks),
        "repeats": _repeats(given),
    }


def _repeats(given: Examined) -> Json:
    """Near copies within the pool, by the rule that finds copies of training images."""
    folder, pool, split = given.images.pool
    ids = pool["image_id"].tolist()
    if len(ids) < 2:
        return missing(f"needs 2 images, and there are {len(ids)}") | {"images": len(ids)}
    numbers, points, turned = np.arange(len(ids)), given.seen.pool.points, given.seen.of_pool()
    index, distances = neighbours(turned, points, _NEAREST, (numbers, numbers))
    turns = orientations(turned, points, index)
    thumbnails = features.thumbnails(folder, ids, split)
    scores = copies.correlations(thumbnails, thumbnails, index, turns)
    scores[~np.isfinite(distances)] = -1
    limit = given.settings.duplicate_correlation
    return artefacts.repeats(_digests(pool).tolist(), scores.max(axis=1), limit)
