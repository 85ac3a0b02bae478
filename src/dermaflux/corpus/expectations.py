"""What the Great Expectations suites `corpus` and `captions` ask, and the columns they look at.

Expectations see metadata only, never pixels. What concerns more than one row or table (a lesion in
two splits, an image without a caption) is first derived as a column, so that a failure names rows.
Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dermaflux import table
from dermaflux.params import Params

if TYPE_CHECKING:
    import pandas as pd

CAPTION_COLUMNS = (
    "image_id",
    "caption",
    "captioner",
    "label",
    "asymmetry",
    "border_irregularity",
    "colours",
    "diameter_fraction",
)
_LABELS = ("benign", "malignant")  # whatever `ingest.indeterminate` says, no third label is left
_NEVER_NULL = ("image_id", "source", "licence", "label", "split", "sha256", "phash")
_GROUPS = {"lesion_id": "lesion", "patient_id": "patient", "duplicate_group": "duplicate group"}
_DERIVED_CORPUS = (
    "shorter_side",
    "malignant",
    "captions",
    *(f"{column}_splits" for column in _GROUPS),
)


class Promise(NamedTuple):
    """One expectation."""

    name: str
    """How errors and reports call it, unique in its suite."""
    asks: str
    """The sentence Data Docs show."""
    kind: str
    """Class of `great_expectations.expectations`."""
    arguments: dict[str, Any]
    split: str | None = None
    """Only rows of this split are looked at, when given."""


def with_derived_corpus(corpus: pd.DataFrame, captions: pd.DataFrame) -> pd.DataFrame:
    """Corpus metadata with the derived columns; one whose sources are absent is left out."""
    frame = corpus.copy()
    present = set(frame.columns)
    if {"width", "height"} <= present:
        frame["shorter_side"] = frame[["width", "height"]].min(axis=1)
    if "label" in present:
        frame["malignant"] = (frame["label"] == "malignant").astype(int)
    if {"image_id"} <= present & set(captions.columns):
        counts = captions["image_id"].value_counts()
        frame["captions"] = frame["image_id"].map(counts).fillna(0).astype(int)
    for column in _GROUPS:
        if {column, "split"} <= present:
            pairs = frame[[column, "split"]].dropna().drop_duplicates().sort_values("split")
            splits = pairs.groupby(column)["split"].agg(" and ".join)
            frame[f"{column}_splits"] = frame[column].map(splits)
    return frame


def with_derived_captions(captions: pd.DataFrame, corpus: pd.DataFrame) -> pd.DataFrame:
    """Captions with the label the corpus gives their image and their length in characters."""
    frame = captions.copy()
    present = set(frame.columns)
    if {"image_id", "label"} <= set(corpus.columns) and "image_id" in present:
        labels = corpus.drop_duplicates("image_id").set_index("image_id")["label"]
        frame["corpus_label"] = frame["image_id"].map(labels)
    if "caption" in present:
        frame["characters"] = frame["caption"].str.len()
    return frame


def corpus_promises(params: Params) -> list[Promise]:
    """What the image table promises, with the limits of `params.validate_`."""
    limits = params.validate_
    promises = [
        _columns((*table.METADATA, *_DERIVED_CORPUS)),
        *_present(_NEVER_NULL),
        _unique_ids(),
        _among("label vocabulary", "label", _LABELS),
        Promise(
            "split vocabulary",
            f"the splits are {', '.join(table.SPLITS)}, and none is empty",
            "ExpectColumnDistinctValuesToEqualSet",
            {"column": "split", "value_set": list(table.SPLITS)},
        ),
        Promise(
            "minimum side",
            f"the published shorter side is at least {limits.minimum_side} pixels",
            "ExpectColumnValuesToBeBetween",
            {"column": "shorter_side", "min_value": limits.minimum_side},
        ),
        _among("scale vocabulary", "scale", table.SCALES),
        Promise(
            "one caption per image",
            "every image has exactly one caption",
            "ExpectColumnValuesToBeInSet",
            {"column": "captions", "value_set": [1]},
        ),
    ]
    # The paper's scale per dataset enlarges some images, so this holds for native scales only.
    if params.ingest.policy == "clean":
        promises.append(
            Promise(
                "scale within size",
                "no image is enlarged: its scale is at most its published shorter side",
                "ExpectColumnPairValuesAToBeGreaterThanB",
                {"column_A": "shorter_side", "column_B": "scale", "or_equal": True},
            )
        )
    return [*promises, *_balanced(limits.malignant_fraction.items()), *_in_one_split()]


def _balanced(limits: Iterable[tuple[str, tuple[float, float]]]) -> Iterator[Promise]:
    for split, (low, high) in limits:
        yield Promise(
            f"label balance of {split}",
            f"between {low:.1%} and {high:.1%} of the {split} images are malignant",
            "ExpectColumnMeanToBeBetween",
            {"column": "malignant", "min_value": low, "max_value": high},
            split=split,
        )


def _in_one_split() -> Iterator[Promise]:
    for column, name in _GROUPS.items():
        yield Promise(
            f"{name} in one split",
            f"no {name} has images in two splits",
            "ExpectColumnValuesToBeInSet",
            {"column": f"{column}_splits", "value_set": list(table.SPLITS)},
        )


def captions_promises(params: Params) -> list[Promise]:
    """What the caption table promises, with the limits of `params.validate_`."""
    low, high = params.validate_.caption_characters
    return [
        _columns((*CAPTION_COLUMNS, "corpus_label", "characters")),
        *_present(("image_id", "caption", "captioner", "label")),
        _unique_ids(),
        Promise(
            "one image per caption",
            "every caption belongs to an image of the corpus",
            "ExpectColumnValuesToNotBeNull",
            {"column": "corpus_label"},
        ),
        Promise(
            "label of the image",
            "the label a caption was written for is the label of its image",
            "ExpectColumnPairValuesToBeEqual",
            {
                "column_A": "label",
                "column_B": "corpus_label",
                "ignore_row_if": "either_value_is_missing",
            },
        ),
        Promise(
            "caption length",
            f"every caption has {low} to {high} characters",
            "ExpectColumnValuesToBeBetween",
            {"column": "characters", "min_value": low, "max_value": high},
        ),
        *(
            Promise(
                f"range of {column}",
                f"{column}, where it was measured, lies in 0 to 1",
                "ExpectColumnValuesToBeBetween",
                {"column": column, "min_value": 0, "max_value": 1},
            )
            for column in ("asymmetry", "border_irregularity")
        ),
    ]


def _columns(names: Iterable[str]) -> Promise:
    return Promise(
        "columns",
        "the table has the columns of its contract and those derived from them, and no others",
        "ExpectTableColumnsToMatchSet",
        {"column_set": list(names), "exact_match": True},
    )


def _present(columns: Iterable[str]) -> Iterator[Promise]:
    for column in columns:
        yield Promise(
            f"{column} present",
            f"every row has a value of {column}",
            "ExpectColumnValuesToNotBeNull",
            {"column": column},
        )


def _unique_ids() -> Promise:
    return Promise(
        "unique ids",
        "no image_id occurs twice",
        "ExpectColumnValuesToBeUnique",
        {"column": "image_id"},
    )


def _among(name: str, column: str, values: Sequence[object]) -> Promise:
    return Promise(
        name,
        f"every {column} is one of {', '.join(map(str, values))}",
        "ExpectColumnValuesToBeInSet",
        {"column": column, "value_set": list(values)},
    )
