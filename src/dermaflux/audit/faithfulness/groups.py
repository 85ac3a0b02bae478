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
from dermaflux.audit.fidelity.comparison import ENOUGH, Images
from dermaflux.audit.interval import missing
from dermaflux.audit.memorisation import copies
from dermaflux.audit.memorisation.neighbours import neighbours, orientations
from dermaflux.captions.lesion.measured import measure
from dermaflux.core import table
from dermaflux.core.arrays import Array
from dermaflux.core.hashing import rank
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dermaflux.audit.features import Turned
    from dermaflux.params import Audit

POOL_COLUMNS = ("prompt", "scale", "diagnosis")
"""Columns of the pool that are read here, beside those of every comparison."""
MOST = 200
"""Images of either side, by the hash of their image_id, in which artefacts are sought."""
_NEAREST = 3  # images of the pool that an image is compared with for repeats
Json = dict[str, Any]


@dataclass(frozen=True)
class Examined:
    """What the audit has of the images already."""

    corpus: Path
    synthetic: Path
    captions: Path | None
    """Captions of the corpus; None where there are none."""
    settings: Audit
    pool: pd.DataFrame
    """Of N images: image_id, sha256, label, and `POOL_COLUMNS`."""
    of_pool: Array
    """(N, D) features."""
    turned: Array | Turned
    """(N, 8, D) features under the symmetries."""
    training: Images
    photographs: Array
    """Numbers of the training images' photographs."""
    test: Images
    trained: str | None
    """The split of the training images; None for several."""
    nearest: Array
    """(N + H,) row of the training image nearest to each of the pool and of H held-out ones."""
    held_out: pd.DataFrame
    """Of those H real images."""
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
    pool = given.pool
    names = list(pool["label"].unique())
    chosen = pd.concat([_first("control", pool[pool["label"] == name], most) for name in names])
    chosen = chosen.sort_values("image_id")
    texts, labels = chosen["prompt"].fillna("").tolist(), chosen["label"].tolist()
    if not any(texts):
        return missing("the images of the pool have no prompts")
    ids = chosen["image_id"].tolist()
    found = {
        name: control.values(measure(image))
        for name, image in table.decoded(given.synthetic, ids, "train")
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
    reference, rows = ("test", given.test.rows)
    if not len(rows):
        reference, rows = ("train", given.training.rows)
    if given.captions is None or not any(given.captions.glob("*.parquet")):
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
    kinds = {"synthetic": (given.synthetic, chosen.rename(columns={"prompt": "caption"}), "train")}
    if captions is not None:
        most = _first("image and text", captions, 2 * settings.control_images)
        kinds["real"] = (given.corpus, most, reference)
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
    training, test = given.training, given.test
    digests = given.pool["sha256"].fillna(given.pool["image_id"])
    alone = np.arange(len(test.rows))
    kept = [_kept(len(points)) for points in (given.of_pool, training.points, test.points)]
    points = (given.of_pool, training.points, test.points)
    labels = [rows["label"].to_numpy() for rows in (given.pool, training.rows, test.rows)]
    photographs = (digests.factorize()[0], given.photographs, alone)
    parts = [Part(*each) for each in zip(points, labels, photographs, strict=True)]
    pool, real, held_out = (part.where(rows) for part, rows in zip(parts, kept, strict=True))
    measured, told = separability.report(pool, real, held_out)
    if figures is not None and told:
        _draw(given, kept[0], kept[1], told, figures / "separability.png")
    return {"trunk": given.settings.trunk, **measured}


def _kept(count: int) -> Array:
    """Rows that the regressions see."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(count)
    kept: Array = np.sort(order[: separability.MOST])
    return kept


def _draw(given: Examined, ours: Array, theirs: Array, told: dict[str, Told], path: Path) -> None:
    from dermaflux.audit.faithfulness import mean_images

    small = trunks.pixels()
    pool, training = given.pool.iloc[ours], given.training.rows.iloc[theirs]
    if given.settings.features == "pixels":
        seen = given.of_pool[ours], given.training.points[theirs]
    else:
        seen = (
            features.extract(given.synthetic, pool, "train", small).points,
            features.extract(given.corpus, training, given.trained, small).points,
        )
    synthetic, real = (trunks.from_pixels(points) for points in seen)
    labels, real_labels = pool["label"].to_numpy(), training["label"].to_numpy()
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
    count, training = len(given.pool), given.training.rows
    near, of_held_out = given.nearest[:count], given.nearest[count:]
    return coverage.report(given.pool, training, near, given.held_out, of_held_out, given.wanted)


def _artefacts(given: Examined) -> Json:
    pool, training = given.pool, given.training.rows
    sizes = pool["scale"].dropna()
    side = int(sizes.mode().iloc[0]) if len(sizes) else None
    asked = training[training["label"].isin(set(pool["label"]) & set(CLASSES) or CLASSES)]
    same = asked[asked["scale"] == side]
    # Real images of other sizes would be resized, which blurs the finest grids of theirs.
    real = _first("artefacts", same if len(same) >= ENOUGH else asked, MOST)
    ours = _first("artefacts", pool, MOST)
    marks = [
        [artefacts.marks(image) for _, image in table.decoded(folder, list(ids), split, side)]
        for folder, ids, split in (
            (given.synthetic, ours["image_id"], "train"),
            (given.corpus, real["image_id"], given.trained),
        )
    ]
    return {
        "reference": given.trained or "train and validation",
        "side": side,
        "resized_reference_images": int((real["scale"] != side).sum()),
        "marks": artefacts.compare(*marks),
        "repeats": _repeats(given),
    }


def _repeats(given: Examined) -> Json:
    """Near copies within the pool, by the rule that finds copies of training images."""
    ids, digests = given.pool["image_id"].tolist(), given.pool["sha256"].fillna("").tolist()
    if len(ids) < 2:
        return missing(f"needs 2 images, and there are {len(ids)}") | {"images": len(ids)}
    numbers, points = np.arange(len(ids)), given.of_pool
    index, distances = neighbours(given.turned, points, _NEAREST, (numbers, numbers))
    turns = orientations(given.turned, points, index)
    thumbnails = features.thumbnails(given.synthetic, ids, "train")
    scores = copies.correlations(thumbnails, thumbnails, index, turns)
    scores[~np.isfinite(distances)] = -1
    limit = given.settings.duplicate_correlation
    return artefacts.repeats(digests, scores.max(axis=1), limit)


def _first(purpose: str, rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many rows, chosen by the hash of their image_id and ordered by it."""
    order = sorted(rows["image_id"], key=lambda image_id: rank(purpose, image_id))
    return rows[rows["image_id"].isin(order[:most])].sort_values("image_id")
