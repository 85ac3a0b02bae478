"""The data card against the counts it is built from, and against the Hub's own parser."""

from __future__ import annotations

import json
import re

import pytest
from huggingface_hub import DatasetCard

from dermaflux import paths
from dermaflux.params import Params
from dermaflux.reporting import data_card


def cells(card: str, first: str) -> list[list[str]]:
    """Body of the Markdown table whose first column is named `first`."""
    lines = card.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def test_card_lists_every_source_and_adds_up(workspace: Params) -> None:
    report = json.loads(paths.INGEST_REPORT.read_text())
    card = data_card.text(workspace, report)
    front_matter = DatasetCard(card).data
    assert front_matter.license == "other"
    assert front_matter.task_categories == ["image-classification", "text-to-image"]
    sources = cells(card, "source")
    assert [row[0] for row in sources[:-1]] == sorted(report["sources"])
    for column, name in ((3, "in"), (4, "quarantined"), (5, "kept")):
        numbers = [int(row[column].replace(",", "")) for row in sources]
        assert sum(numbers[:-1]) == numbers[-1] == report["images"][name]
    kept = sum(int(row[-1].replace(",", "")) for row in cells(card, "split"))
    assert kept == report["images"]["kept"]
    for source in report["sources"].values():
        assert f"{source['title']}: {source['citation']}. {source['url']}" in card


def test_card_says_that_the_published_corpus_leaks(workspace: Params) -> None:
    report = json.loads(paths.INGEST_REPORT.read_text())
    assert "leaks, for comparison" not in data_card.text(workspace, report)
    published = data_card.text(workspace, report | {"policy": "as_published"})
    assert "leaks, for comparison" in published


def test_text_of_a_dataset_cannot_break_a_table(workspace: Params) -> None:
    report = json.loads(paths.INGEST_REPORT.read_text())
    report["sources"]["kaggle1"]["title"] = "a | b\n<c> & d"
    rows = cells(data_card.text(workspace, report), "source")
    assert [row[1] for row in rows if row[0] == "kaggle1"] == ["a \\| b <c> & d"]


@pytest.mark.parametrize("policy", ["clean", "as_published"])
def test_a_test_part_drawn_here_is_not_called_a_published_one(
    workspace: Params, policy: str
) -> None:
    report = {**json.loads(paths.INGEST_REPORT.read_text()), "policy": policy}
    before = data_card.text(workspace, report)
    sentence = "No kept image is in a published test part, so it was drawn"
    card = data_card.text(workspace, {**report, "test_drawn": {"sentence": sentence}})
    assert sentence not in before
    assert f"- {sentence}." in card
    published = re.compile("published test parts form the test split|the test images of ISIC 2019")
    assert published.search(before)
    assert not published.search(card)
