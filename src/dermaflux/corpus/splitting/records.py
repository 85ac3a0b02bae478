"""A record in the stage `ingest`: read, then decoded or rejected. Types only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dermaflux.corpus.decoding.decode_cache import CachedImage
from dermaflux.sources.adapter import Problem, Record
from dermaflux.sources.discovery import Dataset

Stage = Literal["source", "decode", "leak", "duplicate"]
"""Step of `ingest` that rejects a record."""


@dataclass(frozen=True, slots=True)
class Item:
    """One record of a dataset: an image file, or a CSV row without one."""

    dataset: Dataset
    record: Record
    location: str
    """Path of the file below the data folder, or of the CSV file and its line."""

    @property
    def image_id(self) -> str:
        """Unique in the corpus."""
        return f"{self.dataset.source.name}/{self.record.original_id}"

    @property
    def licence(self) -> str:
        """Licence of the image where the dataset publishes one per image, else of the dataset."""
        return self.record.facts.licence or self.dataset.source.licence


@dataclass(frozen=True, slots=True)
class DecodedItem:
    """An item that has a label and whose image decoded."""

    item: Item
    image: CachedImage


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row of the quarantine table."""

    item: Item
    stage: Stage
    problem: Problem
    scale: int | None = None
    """Pixels; None where the image was rejected before it had a scale."""
