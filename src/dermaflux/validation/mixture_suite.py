"""The Great Expectations suite `mixture`: what the images that one arm trains on must satisfy.

Reads and writes nothing; `mixture_gate` runs it on the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from dermaflux.core.vocabulary import CLASSES
from dermaflux.validation.checks import GROUPS, Check, among, mean_between, none_of, present, unique

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.params import Params

HELD_OUT = ("image_id", "split", "sha256", *GROUPS)
"""Columns read of the validation and test splits: identities, no label."""
MIXTURE = ("label", "source", *HELD_OUT)
"""Columns read of the corpus's training split and of the synthetic pool."""


def with_derived_columns(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    held_out: pd.DataFrame,
    rejected: Collection[str],
) -> pd.DataFrame:
    """Images one arm trains on, `kind` real or synthetic, and what ties them to held-out images.

    `real` and `synthetic` are the rows trained on, columns `MIXTURE`; `held_out` the validation and
    test rows of the corpus, columns `HELD_OUT`; `rejected` image_ids the audit found memorised.
    """
    import pandas as pd

    parts = (real.assign(kind="real"), synthetic.assign(kind="synthetic"))
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    frame["malignant"] = (frame["label"] == "malignant").astype("int8")
    frame["memorised"] = frame["image_id"].where(frame["image_id"].isin(list(rejected)))
    for column in ("sha256", *GROUPS):
        for name, rows in (("held_out", held_out), ("test", held_out[held_out["split"] == "test"])):
            known = rows.dropna(subset=[column]).drop_duplicates(column)
            image_of = known.set_index(column)["image_id"]
            frame[f"{name}_{column}"] = frame[column].map(image_of).astype("str")
    return frame


def checks(
    params: Params, arm: str, leaking: Collection[str], counts: Mapping[str, int] | None = None
) -> list[Check]:
    """Checks of one arm's training images; ties to the splits of `leaking` only warn.

    `counts`: images of each kind where `real_fraction` decides their number; they keep the
    proportions of the split, so neither kind is balanced.
    """
    expected = dict(counts or {"real": params.n_real})
    if arm == "mixture" and counts is None:
        expected["synthetic"] = params.synthetic_wanted()
    expected = {kind: count for kind, count in expected.items() if count}
    classes: list[Check] = [*present(("label",)), among("label vocabulary", "label", CLASSES)]
    if params.train.labels == "diagnosis":
        classes = [*present(("diagnosis",))]
    if counts is None:
        # The draw takes equally many of both classes, so an even number.
        expected = {kind: count - count % 2 for kind, count in expected.items()}
        classes += [_balance(kind) for kind in expected]
    return [
        *present(("image_id", "source", "sha256")),
        unique("unique ids", "image_id"),
        *classes,
        among("split vocabulary", "split", ("train",)),
        *(_number(kind, count) for kind, count in expected.items()),
        none_of("not memorised", "memorised", "no image is one that the audit rejected"),
        *(check._replace(blocking=not leaking) for check in _apart("held_out", "held out")),
        *(_apart("test", "in test") if leaking and "test" not in leaking else ()),
    ]


def _apart(prefix: str, where: str) -> Iterator[Check]:
    """No image is tied to those that the derived columns of this prefix name."""
    splits = "test" if prefix == "test" else "validation or test"
    same = f"no image is, byte for byte, one of {splits}"
    yield none_of(f"image not {where}", f"{prefix}_sha256", same)
    for column, name in GROUPS.items():
        shared = f"no {name} also has images in {splits}"
        yield none_of(f"{name} not {where}", f"{prefix}_{column}", shared)


def _number(kind: str, count: int) -> Check:
    return Check(
        f"number of {kind} images",
        f"{count} {kind} images take part",
        "ExpectTableRowCountToEqual",
        {"value": count},
        {"kind": kind},
    )


def _balance(kind: str) -> Check:
    description = f"half of the {kind} images are malignant"
    return mean_between(f"balance of {kind}", "malignant", 0.5, 0.5, description, {"kind": kind})
