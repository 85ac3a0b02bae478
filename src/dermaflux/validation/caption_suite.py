"""The Great Expectations suite `captions`: checks of the caption table and the columns they need.

Limits come from the section `validate` of the parameters. Names that the stage `caption` decides
are repeated here, so that its code is no dependency of the stage `validate`; a test compares the
two. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dermaflux.params import Params
from dermaflux.validation.checks import Check, between, columns, few_of, none_of, present, unique

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "image_id",
    "caption",
    "captioner",
    "label",
    "asymmetry",
    "border_irregularity",
    "colours",
    "diameter_fraction",
    "flags",
    "prompt_tokens",
    "completion_tokens",
    "held_out",
)
FAULTS = (
    *("refusal", "empty", "truncated", "contradicts label", "no asymmetry", "no border"),
    *("no colour", "no shape", "no size", "no texture", "not English", "repetitive"),
)
"""Flags of the quality gate of the stage `caption`."""
_TEMPLATE_CAPTIONERS = ("measured", "label")
"""Captioners whose sentences come from a template and so repeat by design."""
_DERIVED = (
    *("corpus_label", "characters", "unknown_flags", "copied"),
    *(f"fault {fault}" for fault in FAULTS),
)


def with_derived_columns(captions: pd.DataFrame, corpus: pd.DataFrame) -> pd.DataFrame:
    """Captions with the label of their image, their length, faults and copies.

    A flagged caption has no length: it counts as a fault, and a refusal is always short.
    """
    frame = captions.copy(deep=False)
    present_columns = set(frame.columns)
    if {"image_id", "label"} <= set(corpus.columns) and "image_id" in present_columns:
        labels = corpus.drop_duplicates("image_id").set_index("image_id")["label"]
        frame["corpus_label"] = frame["image_id"].map(labels)
    if "caption" in present_columns:
        frame["characters"] = frame["caption"].str.len()
    if "flags" in present_columns:
        flags = frame["flags"].astype("str")
        if "characters" in frame:
            frame.loc[flags.notna(), "characters"] = None
        parts = flags.dropna().str.split(",").explode().astype("str").str.strip()
        for fault in FAULTS:
            frame[f"fault {fault}"] = _text_where(frame, parts.index[parts == fault], fault)
        unknown = parts[~parts.isin(FAULTS)]
        frame["unknown_flags"] = unknown.groupby(level=0).first().reindex(frame.index)
    if {"caption", "captioner"} <= present_columns:
        text = frame["caption"].str.lower().str.replace(r"\W+", " ", regex=True).str.strip()
        written = ~frame["captioner"].isin(_TEMPLATE_CAPTIONERS) & (text != "")
        copies = written & text.where(written).duplicated(keep=False)
        frame["copied"] = _text_where(frame, frame.index[copies], "also of another image")
    return frame


def _text_where(frame: pd.DataFrame, rows: pd.Index[Any], text: str) -> pd.Series[Any]:
    """`text` in these rows, null elsewhere; a category, which costs a byte a row."""
    import pandas as pd

    codes = frame.index.isin(rows).astype("int8") - 1
    return pd.Series(pd.Categorical.from_codes(codes, [text]), index=frame.index)


def checks(params: Params) -> list[Check]:
    """Checks of the caption table, with the limits of `params.validate_`."""
    low, high = params.validate_.caption_characters
    return [
        columns((*COLUMNS, *_DERIVED)),
        *present(("image_id", "caption", "captioner", "label")),
        unique("unique ids", "image_id"),
        Check(
            "one image per caption",
            "every caption belongs to an image of the corpus",
            "ExpectColumnValuesToNotBeNull",
            {"column": "corpus_label"},
        ),
        Check(
            "label of the image",
            "the label a caption was written for is the label of its image",
            "ExpectColumnPairValuesToBeEqual",
            {
                "column_A": "label",
                "column_B": "corpus_label",
                "ignore_row_if": "either_value_is_missing",
            },
        ),
        between(
            "caption length",
            "characters",
            low,
            high,
            f"every caption that is not flagged has {low} to {high} characters",
        ),
        *_quality(params),
        *(
            between(
                f"range of {column}",
                column,
                0,
                1,
                f"{column}, where it was measured, lies in 0 to 1",
            )
            for column in ("asymmetry", "border_irregularity")
        ),
    ]


def _quality(params: Params) -> Iterator[Check]:
    """Fractions of captions with each fault, and of copies across images."""
    limits = params.validate_
    yield none_of("flag vocabulary", "unknown_flags", "every flag is a fault of the quality gate")
    for fault in FAULTS:
        limit = limits.caption_fault_fraction
        description = f"at most {limit:.1%} of the captions are flagged {fault!r}"
        yield few_of(f"caption fault {fault}", f"fault {fault}", limit, description)
    limit = limits.caption_repeated_fraction
    yield few_of(
        "copies across images",
        "copied",
        limit,
        f"at most {limit:.1%} of the captions a model wrote repeat another image's word for word",
    )
