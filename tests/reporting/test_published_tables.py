"""Published tables on the page: what is of this run, of a grid, and not run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dermaflux import paths
from dermaflux.core.files import write_json, write_text
from dermaflux.params import Params, load
from dermaflux.reporting.published import protocols, tables
from dermaflux.statistics.evaluations import Estimate
from dermaflux.statistics.seed_means import SeedMean

ROOT = Path(__file__).parents[2]
RATIOS = """
description: ratios
source: A paper, Figure 4
set: {train.architectures: [vit], train.arms: [real, mixture]}
runs:
  - vary: {n_real: [100, 200], ratio: [0, 4]}
published:
  - {at: {n_real: 100, ratio: 4}, architecture: vit, figure: auc, value: 0.7}
  - {at: {n_real: 200, ratio: 4}, architecture: vit, figure: auc, value: 0.8}
  - {at: {n_real: 200, ratio: 0}, architecture: vit, figure: auc, value: 0.75}
  - {at: {n_real: 200, ratio: 4}, over: {n_real: 200, ratio: 0}, architecture: vit, figure: auc,
     value: 0.05}
"""
POOLS = """
description: pools
source: A paper, Table 1
layout: fidelity
runs:
  - {name: here, set: {generator: flux_lora}}
  - {name: away, set: {generator: vap}}
fidelity:
  - {title: A, data: D, run: here, published: {fid: 20.0, recall: 0.5}}
  - {title: B, data: D, run: away, published: {fid: 30.0}}
  - {title: C, data: E, why: no such data, published: {fid: 40.0}}
"""


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    return load.load(ROOT / "params.yaml")


def test_each_cell_is_of_this_run_of_a_grid_or_not_run(params: Params) -> None:
    write_text(Path("grids/figure4.yaml"), RATIOS)
    write_text(Path("grids/vap_table1.yaml"), POOLS)
    found = {"at": {"n_real": 200, "ratio": 4}, "over": {}, "architecture": "vit", "arm": "",
             "figure": "auc", "value": 0.77, "low": 0.75, "high": 0.79}  # fmt: skip
    write_json(paths.GRIDS / "figure4" / "published.json", {"rows": [found]})
    mean = SeedMean(np.array([0.6, 0.7]), np.empty(0))
    audit = {"train": {"fid": {"value": 9.0, "low": 8.0, "high": 10.0}}}
    papers = tables.papers(params, {("vit", "mixture"): {"auc": mean}}, audit, 0.95)
    assert list(papers) == ["DermaFlux", "VAP-Diffusion"]
    ratios = papers["DermaFlux"][0]
    states = [(row.state, row.cells["auc"].published) for row in ratios.rows]
    assert states == [("this run", 0.7), ("grid", 0.8), ("not run", 0.75), ("not run", 0.05)]
    first, second = (row.cells["auc"].ours or Estimate(0) for row in ratios.rows[:2])
    assert first.value == pytest.approx(0.65)
    assert (second.low, second.high) == (0.75, 0.79)
    assert [row.labels[2] for row in ratios.rows[:3]] == ["mixture", "mixture", "real"]
    assert ratios.rows[3].difference
    assert ratios.run == 2
    # A distance on other features than Inception's is no FID to be compared with a published one.
    pools = papers["VAP-Diffusion"][0]
    assert [row.state for row in pools.rows] == ["not run", "not run", "not run: no such data"]
    audited = params.audit.model_copy(update={"features": "inception"})
    again = params.model_copy(update={"audit": audited})
    row = tables.papers(again, {}, audit, 0.95)["VAP-Diffusion"][0].rows[0]
    assert row.state == "this run"
    assert row.cells["fid"].ours == Estimate(9.0, 8.0, 10.0)
    assert row.cells["recall"].ours is None


def test_the_shipped_protocols_give_the_papers_tables(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "FOLDER", ROOT / "grids")
    papers = tables.papers(params, {}, {}, 0.95)
    rows = {table.grid: table.rows for each in papers.values() for table in each}
    assert rows.keys() == {name for names in protocols.PAPERS.values() for name in names}
    assert all(row.state.startswith("not run") for each in rows.values() for row in each)
    dermae = {row.labels: row.cells for row in rows["dermae_table1"]}
    best = dermae["MAE ViT-H distill EfficientNet-B0 + synth", "malignancy"]
    assert (best["accuracy"].published, best["f1"].published) == (0.9051, 0.9010)
    assert len(dermae) == 26  # 14 classifiers, of which two have binary figures alone
    vap = {row.labels: row.cells for row in rows["vap_table1"]}
    assert vap["ISIC 2018", "StyleGAN"]["fid"].published == 16.968
    assert len(rows["vap_table2"]) == 12
