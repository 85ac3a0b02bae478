"""What the Great Expectations suites `synthetic` and `mixture` ask: the borders before training.

The synthetic shards are checked where `synthesize` ends, the mixture (every image that one arm of
one classifier trains on) before `train` decodes it. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.validation.checks import (
    GROUPS,
    Promise,
    among,
    between,
    columns,
    mean_between,
    none_of,
    present,
    unique,
)

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.params import Params, Synthesize

HELD_OUT = ("image_id", "sha256", *GROUPS)
"""Columns of validation and test that the border `mixture` looks at: names, no label."""
MIXTURE = ("label", "source", "split", *HELD_OUT)
"""Columns of the corpus's training split and of the synthetic pool that it looks at."""
RELEASED = (
    *("image_id", "label", "source", "licence", "split", "sha256", "generator", "weights"),
    *("width", "height", "sampler_settings"),
)
PROVENANCE = (
    *RELEASED,
    *("prompt", "seed", "batch"),
)


def with_derived_synthetic(frame: pd.DataFrame) -> pd.DataFrame:
    """Metadata of the shards with `malignant` (0 or 1) and `side` (pixels, null if not square)."""
    frame = frame.copy(deep=False)
    frame["malignant"] = (frame["label"] == "malignant").astype("int8")
    frame["side"] = frame["width"].where(frame["width"] == frame["height"])
    return frame


def released_promises(section: Synthesize) -> list[Promise]:
    """What a pool of released images promises: no prompt, seed or step of theirs is known."""
    return [*_pool(section), *present(RELEASED)]


def synthetic_promises(section: Synthesize, settings: Mapping[str, Any]) -> list[Promise]:
    """What sampled shards promise; `settings` are those of the generator they were made with."""
    promises = [
        *_pool(section),
        *present((*PROVENANCE, "side")),
        unique("unique seeds", "seed"),
        among("side", "side", (section.scale,), f"every image is {section.scale} pixels square"),
    ]
    if "steps" in settings:
        promises.append(among("steps", "steps", (settings["steps"],)))
    if "guidance" in settings:
        guidance = settings["guidance"]
        asks = f"every image was sampled with guidance {guidance:g}"
        low, high = guidance - 1e-4, guidance + 1e-4  # stored in single precision
        promises.append(between("guidance", "guidance", low, high, asks))
    return promises


def _pool(section: Synthesize) -> list[Promise]:
    """What both kinds of pool promise."""
    slack = 0.5 / section.images  # an odd image more in one class
    return [
        columns((*table.METADATA, "malignant", "side")),
        Promise(
            "pool size",
            f"the pool holds {section.images} images",
            "ExpectTableRowCountToEqual",
            {"value": section.images},
        ),
        unique("unique ids", "image_id"),
        unique("unique pictures", "sha256"),
        among("label vocabulary", "label", CLASSES),
        among("split vocabulary", "split", ("train",)),
        among("scale consistency", "scale", (section.scale,)),
        Promise(
            "one generator",
            "all images come from the same weights",
            "ExpectColumnUniqueValueCountToBeBetween",
            {"column": "weights", "min_value": 1, "max_value": 1},
        ),
        mean_between(
            "label balance",
            "malignant",
            0.5 - slack,
            0.5 + slack,
            "the classes are equally large",
            {"split": "train"},
        ),
    ]


def with_derived_mixture(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    held_out: pd.DataFrame,
    rejected: Collection[str],
) -> pd.DataFrame:
    """Images one arm trains on, `kind` real or synthetic, and what ties them to held-out images.

    `real` and `synthetic` are the drawn rows, columns `MIXTURE`; `held_out` the validation and test
    rows of the corpus, columns `HELD_OUT`; `rejected` image_ids the audit found memorised.
    """
    import pandas as pd

    parts = (real.assign(kind="real"), synthetic.assign(kind="synthetic"))
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    frame["malignant"] = (frame["label"] == "malignant").astype("int8")
    frame["memorised"] = frame["image_id"].where(frame["image_id"].isin(list(rejected)))
    for column in ("sha256", *GROUPS):
        known = held_out.dropna(subset=[column]).drop_duplicates(column)
        tied = known.set_index(column)["image_id"]
        frame[f"held_out_{column}"] = frame[column].map(tied).astype("str")
    return frame


def mixture_promises(
    params: Params, arm: str, published: bool, drawn: Mapping[str, int] | None = None
) -> list[Promise]:
    """What one arm's training images promise; `published` data may leak and then only warn.

    `drawn`: images of each kind where `real_fraction` decides their number; they keep the
    proportions of the split, so neither kind is balanced.
    """
    counts = dict(drawn or {"real": params.n_real})
    if arm == "mixture" and drawn is None:
        counts["synthetic"] = params.synthetic_wanted()
    counts = {kind: count for kind, count in counts.items() if count}
    classes: list[Promise] = [*present(("label",)), among("label vocabulary", "label", CLASSES)]
    if params.train.labels == "diagnosis":
        classes = [*present(("diagnosis",))]
    if drawn is None:
        # `draw` takes an even number of both classes.
        counts = {kind: count - count % 2 for kind, count in counts.items()}
        classes += [_even(kind) for kind in counts]
    return [
        *present(("image_id", "source", "sha256")),
        unique("unique ids", "image_id"),
        *classes,
        among("split vocabulary", "split", ("train",)),
        *(_number(kind, count) for kind, count in counts.items()),
        none_of("not memorised", "memorised", "no image is one that the audit rejected"),
        none_of(
            "picture not held out",
            "held_out_sha256",
            "no picture is, byte for byte, one of validation or test",
        )._replace(stops=not published),
        *(
            none_of(
                f"{name} not held out",
                f"held_out_{column}",
                f"no {name} also has images in validation or test",
            )._replace(stops=not published)
            for column, name in GROUPS.items()
        ),
    ]


def _number(kind: str, count: int) -> Promise:
    return Promise(
        f"number of {kind} images",
        f"{count} {kind} images take part",
        "ExpectTableRowCountToEqual",
        {"value": count},
        {"kind": kind},
    )


def _even(kind: str) -> Promise:
    asks = f"half of the {kind} images are malignant"
    return mean_between(f"balance of {kind}", "malignant", 0.5, 0.5, asks, {"kind": kind})
