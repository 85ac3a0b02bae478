"""The published datasets, by name."""

from __future__ import annotations

from importlib import import_module

from dermaflux.sources.adapter import Source

NAMES = (
    *("mednode", "hiba", "derm12345", "isic2019", "isic2020", "milk10k"),
    *("padufes20", "kaggle1", "kaggle2", "ddi", "isic2024"),
    "isic2018",
)
"""Modules of `sources/published/`: the eleven of the paper's Table 1 in its order, then others."""

SOURCES: dict[str, Source] = {
    name: import_module(f"dermaflux.sources.published.{name}").SOURCE for name in NAMES
}
