"""The data card against the counts it is made from, and against a YAML parser."""

from __future__ import annotations

import json

from ruamel.yaml import YAML

from dermaflux import paths
from dermaflux.params import Params
from dermaflux.reporting import data_card


def cells(card: str, first: str) -> list[list[str]]:
    """Body of the Markdown table whose first column is called `first`."""
    lines = card.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_card_lists_every_source_and_adds_up(workspace: Params) -> None:
    report = json.loads(paths.INGEST_REPORT.read_text())
    card = data_card.text(workspace, report)
    assert YAML(typ="safe").load(card.split("---")[1])["license"] == "other"
    sources = cells(card, "source")
    assert [row[0] for row in sources[:-1]] == sorted(report["sources"])
    for column, name in ((3, "in"), (4, "quarantined"), (5, "kept")):
        numbers = [int(row[column].replace(",", "")) for row in sources]
        assert sum(numbers[:-1]) == numbers[-1] == report["images"][name]
    kept = sum(int(row[-1].replace(",", "")) for row in cells(card, "split"))
    assert kept == report["images"]["kept"]
    for one in report["sources"].values():
        assert one["citation"] in card
        assert one["url"] in card


def test_card_says_that_the_published_corpus_leaks(workspace: Params) -> None:
    report = json.loads(paths.INGEST_REPORT.read_text())
    assert "leaks, for comparison" not in data_card.text(workspace, report)
    published = data_card.text(workspace, report | {"policy": "as_published"})
    assert "leaks, for comparison" in published
