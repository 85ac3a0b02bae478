"""What the page says of shortcuts, and when the verdict names the arms' sources."""

from __future__ import annotations

import json

import pytest

from dermaflux import paths
from dermaflux.params import Params
from dermaflux.reporting import report, shortcut_section
from dermaflux.statistics.evaluations import Cell


def cell(seed: int, real: float, mixture: float, validation: float = 0.5) -> Cell:
    shared = {"source_auc": 0.5 + seed / 10, "scale_auc": 0.5, "file_auc": 0.5}
    shared |= {f"validation_{name}": validation for name in shared}
    arms = {
        "real": {**shared, "training_source_auc": real},
        "mixture": {**shared, "training_source_auc": mixture},
    }
    return Cell("vit", seed, arms, {})


def test_facts_are_means_over_seeds_and_cells_without_them_have_none() -> None:
    rows = shortcut_section.table([cell(0, 0.5, 0.5), cell(1, 0.5, 0.5)], "auc")
    assert [(row.name, row.test) for row in rows] == [
        ("source", pytest.approx(0.55)), ("scale", 0.5), ("size and mean colour", 0.5),
    ]  # fmt: skip
    assert not any(row.high for row in rows)
    assert all(row.high for row in shortcut_section.table([cell(0, 0.5, 0.5, 0.91)], "auc"))
    assert shortcut_section.table([Cell("vit", 0, {"real": {"auc": 0.8}}, {})], "auc") == []


@pytest.mark.parametrize(
    ("real", "mixture", "named"),
    [(0.91, 0.6, True), (0.91, 0.88, False), (0.6, 0.5, False), (0.5, 0.7, True)],
)
def test_arms_of_other_sources_are_named_where_the_source_tells_the_class(
    real: float, mixture: float, named: bool
) -> None:
    said = shortcut_section.compositions([cell(0, real, mixture)], "auc")
    assert set(said) == ({"vit"} if named else set())
    if named:
        assert f"AUC {real:.3f} among the training images of real and {mixture:.3f}" in said["vit"]


def test_the_verdict_on_the_page_names_it(workspace: Params) -> None:
    plain = report.render(workspace)
    assert "composed of different sources" not in plain
    assert "Without a look at the lesion</h3>" not in plain
    for path in paths.EVALUATIONS.glob("*.json"):
        content = json.loads(path.read_text())
        for arm, figures in cell(0, 0.91, 0.62, 0.91).arms.items():
            content[arm] |= figures
        path.write_text(json.dumps(content))
    page = report.render(workspace)
    assert page.count("The arms real and mixture are composed of different sources") == 2
    assert "among the training images of real and 0.620 among those of mixture" in page
    assert "Without a look at the lesion</h3>" in page
    assert page.count("a shortcut: a classifier can learn this in place of the lesion") == 3
