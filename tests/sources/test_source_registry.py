"""What every adapter declares, and the smallest one, which the documentation shows."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from layouts import records, rule, touch

from dermaflux.core import vocabulary
from dermaflux.sources import adapter, overview, paper_counts
from dermaflux.sources.adapter import Counts, Source
from dermaflux.sources.discovery import discover
from dermaflux.sources.registry import SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_declares_what_a_stranger_needs(name: str) -> None:
    source = SOURCES[name]
    assert source.name == name
    assert source.licence in vocabulary.LICENCES
    assert source.modality in vocabulary.MODALITIES
    assert re.match(r"https://[^/]+/?", source.url)
    assert source.title
    assert source.citation
    assert source.mapping
    assert source.markers
    assert source.published_scale in (None, 128, 256, 512)
    assert sum(counts.images for counts in source.counts.values()) > 0
    assert not paper_counts.inconsistent(source)
    assert bool(source.by_hand) == (source.download is None)
    claimed = set(source.claims)
    assert {marker.split("/")[0] for marker in source.markers} <= claimed


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Source:
    """The adapter in the docstring of `sources.adapter`, registered."""
    code = str(adapter.__doc__).split("::\n", 1)[1]
    module: dict[str, Source] = {}
    exec(textwrap.dedent(code), module)
    monkeypatch.setitem(SOURCES, "example", module["SOURCE"])
    return module["SOURCE"]


def test_the_documented_example_is_a_complete_adapter(example: Source, tmp_path: Path) -> None:
    root = tmp_path / "example"
    touch(root, *(f"images/{name}.jpg" for name in ("a", "b", "c", "unlisted")))
    (root / "labels.csv").write_text(
        "image,dx,patient\na.jpg,nevus,1\nb.jpg,melanoma,1\nc.jpg,unsure,2\nd.jpg,nevus,2\n"
    )
    images = records(root, "example")
    assert {name: rule(record) for name, record in images.items()} == {
        "a": None,
        "b": None,
        "c": "bad-value",
        "unlisted": "no-row",
        "d": "no-image",
    }
    assert [images[name].facts.label for name in "ab"] == ["benign", "malignant"]
    assert images["a"].facts.patient_id == "example:1"
    assert [dataset.source for dataset in discover(tmp_path, [])[0]] == [example]
    assert example.by_hand in overview.overview(SOURCES.values())


def test_a_dataset_that_is_not_in_the_paper_changes_no_sum(
    example: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = overview.check(source for name, source in SOURCES.items() if name != "example")
    parts = {**example.counts, "test": Counts(10, 5, 5)}
    monkeypatch.setitem(SOURCES, "example", replace(example, counts=parts))
    assert overview.check(SOURCES.values()) == before
    monkeypatch.setitem(SOURCES, "example", replace(example, counts=parts, published_scale=256))
    assert overview.check(SOURCES.values()) != before
