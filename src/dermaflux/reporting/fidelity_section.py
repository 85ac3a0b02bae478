"""The page's table on fidelity and diversity: every comparison that the audit made. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermaflux.reporting.pages import number

_PLACES = {"fid": 2, "kid": 4, "inception_score": 2}
_TITLES = {
    "fid": "FD",
    "kid": "KID",
    "inception_score": "IS",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "memorised": "Memorised",
}
_GROUPS = {"all": "", "label": "", "source": "source ", "skin_tone": "skin tone "}


def build(trunk: str, comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Everything the template needs; None when there is no comparison.

    A figure that no comparison has is named with its reason below the table; one that some lack,
    in the row that lacks it.
    """
    if not comparisons:
        return None
    shown = [name for name in _TITLES if any(_given(row[name]) for row in comparisons)]
    titles = dict(_TITLES) | ({"fid": "FID"} if trunk.startswith("inception") else {})
    absent = {titles[name]: comparisons[0][name]["reason"] for name in titles if name not in shown}
    return {
        "frechet": titles["fid"],
        "titles": [titles[name] for name in shown],
        "rows": [_row(row, shown, titles) for row in comparisons],
        "absent": absent,
    }


def _row(row: Mapping[str, Any], shown: Sequence[str], titles: Mapping[str, str]) -> dict[str, Any]:
    group = "whole pool" if row["group"] == "all" else f"{_GROUPS[row['group']]}{row['name']}"
    reasons: dict[str, list[str]] = {}
    for name in shown:
        if not _given(row[name]):
            reasons.setdefault(row[name]["reason"], []).append(titles[name])
    return {
        "reference": row["reference"],
        "group": group,
        "images": f"{row['images']:,} and {row['reference_images']:,}",
        "floor_images": f"{row['floor']['images']:,} and {row['floor']['reference_images']:,}",
        "cells": [_cell(row[name], _PLACES.get(name, 3)) for name in shown],
        "floor": [_value(row["floor"].get(name), _PLACES.get(name, 3)) for name in shown],
        "missing": [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()],
    }


def _given(figure: Mapping[str, Any]) -> bool:
    return figure["value"] is not None


def _cell(figure: Mapping[str, Any], places: int) -> str:
    if not _given(figure):
        return "–"
    value, low, high = (number(figure[name], places) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _value(figure: Mapping[str, Any] | None, places: int) -> str:
    return "" if figure is None else number(figure["value"], places)
