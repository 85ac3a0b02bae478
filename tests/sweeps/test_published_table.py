"""DerMAE's Table 1: what its numbers say about themselves, and the page of published and ours."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from ruamel.yaml import YAML
from test_contrasts import experiment, parameters

from dermaflux.errors import InputError
from dermaflux.sweeps import dvc_experiments, grid, published_table, results
from dermaflux.sweeps.grid import Grid, Run

ROOT = Path(__file__).parents[2]
NAME = "dermae_table1"
TEST_COUNTS = {"NV": 909, "BKL": 217, "MEL": 171, "BCC": 93, "DF": 44, "AKIEC": 43, "VASC": 35}
MALIGNANT = ("MEL", "BCC", "AKIEC")
"""Of the official test set of ISIC 2018, task 3."""


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Grid:
    monkeypatch.chdir(ROOT)
    return grid.load(NAME)


def test_the_notes_of_the_grid_follow_from_its_published_numbers(table: Grid) -> None:
    rows = {row.title: row for row in table.table}
    assert len(rows) == 14
    images = sum(TEST_COUNTS.values())
    assert images == 1512
    own = [
        stated["accuracy"]
        for row in table.table
        if row.run
        for stated in (row.diagnosis, row.malignancy)
    ]
    assert len(own) == 24
    rounded = {f"{count / images:.4f}" for count in range(images + 1)}
    cut = {f"{count * 10_000 // images / 10_000:.4f}" for count in range(images + 1)}
    texts = [f"{accuracy:.4f}" for accuracy in own]
    assert sum(text in rounded for text in texts) == 4
    assert sum(text in rounded | cut for text in texts) == 5
    assert len(own) * len(rounded) / 10_001 == pytest.approx(3.63, abs=0.005)
    nevi = TEST_COUNTS["NV"] / images
    benign = 1 - sum(TEST_COUNTS[name] for name in MALIGNANT) / images
    assert (round(nevi, 3), round(benign, 3)) == (0.601, 0.797)
    pairs = [tuple(row.malignancy.values()) for row in table.table]
    assert [pair for pair in set(pairs) if pairs.count(pair) > 1] == [(0.8278, 0.7887)]
    prefix = "MAE ViT-H distill "
    binary = {title: row.malignancy["accuracy"] for title, row in rows.items()}
    assert binary[f"{prefix}to ViT-B (no synth)"] == 0.8782 > binary[f"{prefix}to ViT-B + synth"]  # type: ignore[operator]
    assert (
        binary[f"{prefix}EfficientNet-B0 + synth"] == 0.9051 > binary["MAE + ViT-H + synth"]  # type: ignore[operator]
    )
    below = [title for title, accuracy in binary.items() if accuracy < 0.797 and rows[title].run]
    assert below == ["ViT-L (Baseline)", "ViT-B (Baseline)", "ViT-B + synth"]
    assert max(binary["ViT-L (Baseline)"], binary["ViT-B + synth"]) < benign  # type: ignore[type-var]
    notes = " ".join(table.notes)
    stated = ("24 own accuracies, 4 are", "3.6", "60.1 %", "79.7 %", "0.8278 and 0.7887", "0.8782",
              "0.9051", "0.8715", "0.7612, 0.7225 and 0.7952")  # fmt: skip
    assert [text for text in stated if text not in notes] == []


def leaves(section: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, value in section.items():
        found |= {f"{prefix}{key}"}
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{key}.")
    return found


def test_runs_and_rows_of_the_grid_are_those_of_its_profile(table: Grid) -> None:
    raw = YAML(typ="safe").load((ROOT / "profiles" / "dermae.yaml").read_text())
    known = leaves(raw)
    for run in grid.runs(NAME, table):
        assert set(run.overrides) <= known, run.name
        changed = grid.with_overrides(raw, run.overrides)
        train, distill = changed["train"], changed["distill"]
        trained = {f"{name}/{arm}" for name in train["architectures"] for arm in train["arms"]}
        students = {f"{name}/{arm}" for name in distill["students"] for arm in distill["arms"]}
        assert {*train["architectures"], *distill["students"]} <= set(train["models"])
        if distill["students"]:
            assert distill["teacher"] in train["architectures"]
        rows = [row for row in table.table if row.run == run.block]
        assert rows
        assert {row.cell for row in rows} <= trained | students


def test_every_line_of_the_profile_says_whose_choice_it_is() -> None:
    for line in (ROOT / "profiles" / "dermae.yaml").read_text().splitlines():
        opens_section = line.rstrip().endswith(":")
        if line and not line.startswith("#") and not opens_section:
            assert "# ours" in line or "# published" in line, line


ACCURACY = [0.7, 0.8, 0.9]


def test_a_row_shows_its_classifier_or_says_that_it_was_not_run() -> None:
    definition = Grid.model_validate(
        {
            "description": "d",
            "source": "s",
            "layout": "table",
            "runs": [{"name": "first"}, {"name": "second", "set": {"ratio": 2}}],
            "table": [
                {"title": "A", "run": "first", "cell": "vit/real",
                 "diagnosis": {"accuracy": 0.6, "f1": 0.5}, "malignancy": {"accuracy": 0.7}},
                {"title": "C", "run": "second", "cell": "vit/real", "malignancy": {"f1": 0.6}},
                {"title": "D", "malignancy": {"accuracy": 0.8, "f1": None}},
            ],
        }
    )  # fmt: skip
    finished = experiment("first", parameters(), {"real": ACCURACY})
    for values in finished.metrics.values():
        for value, accuracy in zip(values, ACCURACY, strict=True):
            value |= {"accuracy": accuracy, "f1": accuracy / 2}
    finished = dataclasses.replace(
        finished, run=Run("table-first", {}, {}, "first"), majority_accuracy=0.797
    )
    rows = published_table.rows(definition, [finished], 0.95)
    assert [(row["title"], row["labels"], row["state"]) for row in rows] == [
        ("A", "diagnosis", "not run"),
        ("A", "malignancy", "finished"),
        ("C", "malignancy", "not run"),
        ("D", "malignancy", published_table.QUOTED),
    ]
    shown = rows[1]
    assert {name: mean.value for name, mean in shown["ours"].items()} == pytest.approx(
        {"accuracy": 0.8, "f1": 0.4}
    )
    assert shown["majority_accuracy"] == 0.797
    line = published_table.line(shown)
    assert line.startswith("A, malignancy: published accuracy 0.7000; ours accuracy 0.800")
    assert "majority accuracy 0.797, 3 seeds" in line
    assert "ours not run" in published_table.line(rows[0])
    assert "quotes it" in published_table.line(rows[3])
    first = definition.table[0].model_copy(update={"cell": "student/real"})
    wrong = definition.model_copy(update={"table": [first]})
    with pytest.raises(InputError, match=r"'A' has the cell 'student/real' but .* vit/real, resn"):
        published_table.rows(wrong, [finished], 0.95)


def test_without_experiments_the_page_shows_the_published_table(
    table: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dvc_experiments, "finished", dict)
    monkeypatch.setattr("dermaflux.paths.GRIDS", tmp_path)
    results.run(NAME)
    assert "ViT-B + synth, malignancy: published accuracy 0.7952" in capsys.readouterr().out
    page = (tmp_path / NAME / "index.html").read_text()
    assert page.count(">not run") == 26
    assert page.count("quotes it from another one") == 2
    assert all(str(escape(note)) in page for note in table.notes)
    rows = pd.read_csv(tmp_path / NAME / "published.csv")
    assert len(rows) == 26
    assert np.isclose(rows["published_accuracy"].max(), 0.9051)


@pytest.mark.parametrize(
    "row",
    [
        {"title": "A", "run": "other", "cell": "vit/real"},
        {"title": "A", "run": "first"},
        {"title": "A", "cell": "vit/real"},
        {"title": "A", "run": "first", "cell": "vit"},
    ],
)
def test_a_row_without_a_classifier_of_the_grid_is_refused(row: dict[str, str]) -> None:
    content = {"description": "d", "source": "s", "runs": [{"name": "first"}], "table": [row]}
    with pytest.raises(ValueError, match=r"name a block of runs|String should match"):
        Grid.model_validate(content)
