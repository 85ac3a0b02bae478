"""The Great Expectations suite `corpus`: checks of the image table and the columns they need.

Expectations see metadata only, never pixels. The limits come from the sections `validate` and
`ingest` of the parameters, and from which sources the corpus contains. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES, LABELS, LICENCES, SKIN_TONES
from dermaflux.params import Params
from dermaflux.validation.checks import (
    GROUPS,
    Check,
    among,
    between,
    columns,
    mean_between,
    none_of,
    present,
    splits_of_groups,
    unique,
)

if TYPE_CHECKING:
    import pandas as pd

NEVER_NULL = ("image_id", "source", "licence", "label", "split", "scale", "sha256", "phash")
_MEASURED_TONES = ("I-II", "III-IV", "V-VI")
_CATEGORIES = (
    *("source", "licence", "modality", "label", "diagnosis", "split"),
    *("skin_tone", "skin_tone_origin", *(f"{column}_splits" for column in GROUPS)),
)
"""Text columns with few distinct values."""
_PRESENCE = ("sha256", "phash", *GROUPS)
"""Columns of which only the presence is checked, once the columns derived from them exist."""
_DERIVED = (
    "shorter_side",
    "malignant",
    "captions",
    "wrong_scale",
    "unclear_tone",
    *(f"{column}_splits" for column in GROUPS),
)


def as_published(params: Params) -> bool:
    """Whether the corpus follows the paper, with its fixed scales, enlarged images and leaks."""
    return params.ingest.policy == "as_published"


def leaking_splits(params: Params) -> tuple[str, ...]:
    """Splits that may share lesions with training, as a published protocol has it."""
    if as_published(params) or params.ingest.test_by == "image":
        return ("validation", "test")
    return ("validation",) if params.ingest.validation_by == "image" else ()


def with_derived_columns(
    corpus: pd.DataFrame, captions: pd.DataFrame, published: bool = False
) -> pd.DataFrame:
    """Corpus metadata with the derived columns, but those whose inputs are absent."""
    frame = corpus.copy(deep=False)
    present_columns = set(frame.columns)
    if {"width", "height"} <= present_columns:
        frame["shorter_side"] = frame[["width", "height"]].min(axis=1)
    if "label" in present_columns:
        frame["malignant"] = (frame["label"] == "malignant").astype("int8")
    if {"image_id"} <= present_columns & set(captions.columns):
        counts = captions["image_id"].value_counts()
        frame["captions"] = frame["image_id"].map(counts).fillna(0).astype("int32")
    if {"width", "height", "scale", "source"} <= present_columns:
        frame["wrong_scale"] = _wrong_scale(frame, published)
    if {"skin_tone", "skin_tone_origin"} <= present_columns:
        frame["unclear_tone"] = _unclear_tone(frame)
    for column in GROUPS:
        if {column, "split"} <= present_columns:
            frame[f"{column}_splits"] = splits_of_groups(frame, column)
    # Great Expectations copies and hashes every column many times: codes instead of text halve the
    # time of a large corpus.
    for column in _PRESENCE:
        if column in present_columns:
            frame[column] = _presence(frame[column])
    return frame.astype({name: "category" for name in _CATEGORIES if name in frame})


def _presence(column: pd.Series[Any]) -> pd.Series[Any]:
    """The word `present` where the column has a value."""
    import pandas as pd

    codes = column.notna().to_numpy().astype("int8") - 1
    return pd.Series(pd.Categorical.from_codes(codes, ["present"]), index=column.index)


def _wrong_scale(frame: pd.DataFrame, published: bool) -> pd.Series[str]:
    """What is wrong with an image's scale, null where nothing is.

    By default the right scale is the largest that the shorter side fills, or the smallest of all.
    As published it is a constant of the dataset: the scale that most of its images have.
    """
    import numpy as np
    import pandas as pd

    if published:
        right = frame.groupby("source")["scale"].transform(lambda scales: scales.mode().iloc[0])
        reason = "its dataset has scale "
    else:
        ordered = np.array(sorted(table.SCALES))
        index = np.searchsorted(ordered, frame["shorter_side"], side="right") - 1
        right = pd.Series(ordered[np.maximum(index, 0)], index=frame.index)
        reason = "its size requires scale "
    return _text_where(frame["scale"] != right, reason, right)


def _unclear_tone(frame: pd.DataFrame) -> pd.Series[str]:
    """What is wrong with the origin of a skin tone, null where nothing is."""
    import pandas as pd

    tone, origin = frame["skin_tone"], frame["skin_tone_origin"]
    out = pd.Series(None, index=frame.index, dtype="str")
    out[tone.notna() & origin.isna()] = "a skin tone without origin"
    out[tone.isna() & origin.notna()] = "an origin without skin tone"
    too_fine = (origin == "measured") & tone.notna() & ~tone.isin(_MEASURED_TONES)
    out[too_fine] = "measured finer than a photograph allows"
    return out


def _text_where(wrong: pd.Series[bool], reason: str, values: pd.Series[Any]) -> pd.Series[str]:
    import pandas as pd

    out = pd.Series(None, index=wrong.index, dtype="str")
    if wrong.any():
        out[wrong] = reason + values[wrong].astype(str)
    return out


def checks(params: Params, corpus: pd.DataFrame) -> list[Check]:
    """Checks of the image table, with the limits of `params` for the datasets it contains."""
    limits, published = params.validate_, as_published(params)
    licences = tuple(params.ingest.licences) or LICENCES
    return [
        columns((*table.METADATA, *_DERIVED)),
        *present(NEVER_NULL),
        unique("unique ids", "image_id"),
        among("licence vocabulary", "licence", licences),
        among("label vocabulary", "label", LABELS if published else CLASSES),
        among("skin tone vocabulary", "skin_tone", SKIN_TONES),
        none_of(
            "skin tone origin",
            "unclear_tone",
            "every skin tone says whether it was published or measured, and none is measured "
            "finer than pairs of Fitzpatrick types",
        ),
        Check(
            "split vocabulary",
            f"the splits are {', '.join(table.SPLITS)}, and none is empty; ingest draws a "
            "test part where ingest.test_fraction is set",
            "ExpectColumnDistinctValuesToEqualSet",
            {"column": "split", "value_set": list(table.SPLITS)},
        ),
        # The paper's counts include smaller images, so that policy reports them and goes on.
        between(
            "minimum side",
            "shorter_side",
            limits.minimum_side,
            None,
            f"the published shorter side is at least {limits.minimum_side} pixels",
        )._replace(blocking=not published),
        among("scale vocabulary", "scale", table.SCALES),
        none_of(
            "scale consistency",
            "wrong_scale",
            "all images of a dataset have one scale"
            if published
            else "the scale of an image is the largest that its published shorter side fills",
        ),
        among("one caption per image", "captions", (1,), "every image has exactly one caption"),
        *label_balances(params, corpus),
        *_in_one_split(leaking_splits(params)),
    ]


def label_balances(params: Params, corpus: pd.DataFrame) -> Iterator[Check]:
    """The share of malignant images in each split and dataset; every split holds both classes."""
    images = _sizes(corpus, "split")
    for split, limits in params.validate_.malignant_fraction.items():
        count = images.get(split, 1)
        low, high = _widened(limits, count)
        yield _balance(split, max(low, 0.5 / count), min(high, 1 - 0.5 / count), "split")
    images = _sizes(corpus, "source")
    per_source = params.validate_.source_malignant_fraction
    for source in sorted(images.keys() & per_source.keys()):
        yield _balance(source, *_widened(per_source[source], images[source]), "source")


def _sizes(corpus: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in corpus:
        return {}
    return {str(name): int(count) for name, count in corpus[column].value_counts().items()}


def _widened(limits: tuple[float, float], images: int) -> tuple[float, float]:
    """Limits of a share, widened by three standard errors of that share among so many images."""
    low, high = limits
    low_error, high_error = ((share * (1 - share) / images) ** 0.5 for share in limits)
    return max(low - 3 * low_error, 0.0), min(high + 3 * high_error, 1.0)


def _balance(part: str, low: float, high: float, column: str) -> Check:
    return mean_between(
        f"label balance of {part}",
        "malignant",
        low,
        high,
        f"between {low:.1%} and {high:.1%} of the {part} images are malignant",
        {column: part},
    )


def _in_one_split(leaking: Sequence[str]) -> Iterator[Check]:
    # Published protocols leak: the report says how much, and the pipeline goes on.
    for column, name in GROUPS.items():
        yield among(
            f"{name} in one split",
            f"{column}_splits",
            table.SPLITS,
            f"no {name} has images in two splits",
        )._replace(blocking=not leaking)
        if leaking and "test" not in leaking:
            yield among(
                f"{name} of test in no other split",
                f"{column}_splits",
                (*table.SPLITS, "train and validation"),
                f"no {name} of a test image has images in another split",
            )
