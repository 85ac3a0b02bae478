"""VAP-Diffusion's tables: what their numbers say about themselves, and pools beside them."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markupsafe import escape
from ruamel.yaml import YAML
from scipy.stats import beta
from test_contrasts import parameters

from dermaflux.errors import InputError
from dermaflux.sweeps import dvc_experiments, grid, plan, results
from dermaflux.sweeps.fidelity import pool, table
from dermaflux.sweeps.grid import Grid, Run

ROOT = Path(__file__).parents[2]
AUDIT = {
    "images": 200,
    "memorised_count": 3,
    "fidelity": {
        "train": {
            "fid": {"value": 41.5, "low": 40.0, "high": 43.25},
            "inception_score": None,
            "precision": {"value": 0.5, "low": None, "high": None},
            "recall": {"value": None, "low": None, "high": None},
            "images": 197,
            "reference_images": 8012,
        },
        "test": None,
    },
}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def figures(name: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Title -> data set -> published figures, of the rows that are the paper's own."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in grid.load(name).fidelity:
        if row.published:
            found[row.title][row.data] = row.published
    return found


def test_the_notes_of_the_grids_follow_from_their_published_numbers() -> None:
    first, second = figures("vap_table1"), figures("vap_table2")
    stylegan, vap = first["StyleGAN"], first["VAP-Diffusion"]
    assert len(stylegan) == len(vap) == 4
    skin = ("ISIC 2018", "ISIC 2019")
    better = [data for data in vap if stylegan[data]["fid"] < vap[data]["fid"]]
    assert better == [*skin, "ChestX-ray14"]
    assert all(stylegan[data]["precision"] > vap[data]["precision"] for data in skin)
    assert vap["Colonoscopy"]["fid"] == 32.147
    with_it, without = second["VAP-Diffusion"], second["without PCM"]
    gains = [round(without[data]["fid"] - with_it[data]["fid"], 3) for data in vap]
    assert gains == [2.054, 1.574, 2.017, 4.958]
    for number, data in enumerate(skin):
        assert with_it[data]["fid"] - vap[data]["fid"] > gains[number]
    for data, stated in second["without VAPS"].items():
        assert {name: first["UViT"][data][name] for name in stated} == stated
    assert pytest.approx(12_781, abs=0.5) == 500_000 * 256 / 10_015
    third = {
        (each.architecture, each.figure, each.at["real_fraction"]): each.value
        for each in grid.load("vap_table3").published
        if each.arm == "real"
    }
    assert len(third) == 12
    assert third["maxvit", "mauc", 0.01] == third["densenet", "mauc", 0.01] == 0.555
    stated = [f"{gain:.3f}" for gain in gains] + ["32.147", "32.417", "26.767", "12,781", "0.412"]
    notes = " ".join(n for name in ("1", "2", "3") for n in grid.load(f"vap_table{name}").notes)
    assert [text for text in stated if text not in notes] == []


@pytest.mark.parametrize("name", ["vap_table1", "vap_table2", "vap_table3"])
def test_every_run_of_the_grids_is_valid(name: str) -> None:
    definition = grid.load(name)
    runs = grid.runs(name, definition)
    raw = YAML(typ="safe").load((ROOT / "profiles" / "vap.yaml").read_text())
    for params in plan.resolve(raw, runs):
        assert params.ingest.sources in (["isic2018"], ["isic2019"])
        assert params.synthesize.conditions == "diagnosis"
    data = {run.name: run.overrides["ingest.sources"] for run in runs}
    for row in definition.fidelity:
        if row.run:
            assert data[f"{name}-{row.run}"] == [row.data.replace(" ", "").lower()]
    assert {row.run for row in definition.fidelity if row.run} == (
        {run.block for run in runs} if definition.fidelity else set()
    )
    for published in definition.published:
        assert any(published.at.items() <= run.overrides.items() for run in runs)


def small(**changes: Any) -> Grid:
    rows = [
        {"title": "A", "data": "D", "run": "first", "published": {"fid": 20.5, "recall": 0.8}},
        {"title": "B", "data": "D", "run": "second", "published": {"precision": None}},
        {"title": "C", "data": "D", "why": "there is none here"},
    ]
    content = {
        "description": "d",
        "source": "s",
        "layout": "fidelity",
        "runs": [{"name": "first"}, {"name": "second", "set": {"seed": 1}}],
        "fidelity": rows,
        "notes": ["<b>One</b> run."],
    }
    return Grid.model_validate(content | changes)


def test_a_row_shows_its_pool_or_says_that_it_was_not_run(tmp_path: Path) -> None:
    definition = small()
    run = Run("g-first", {}, {}, "first")
    audited = pool.of_report(run, parameters(), json.loads(json.dumps(AUDIT)))
    rows = table.rows(definition, [audited])
    assert [row["state"] for row in rows] == ["finished", "not run", "not run: there is none here"]
    share = audited.memorised_share
    assert share.value == 3 / 200
    # Clopper and Pearson's limits are quantiles of beta distributions.
    assert share.low == pytest.approx(beta.ppf(0.025, 3, 198))
    assert share.high == pytest.approx(beta.ppf(0.975, 4, 197))
    assert table.line(rows[0]) == (
        "D, A: published FID 20.500, recall 0.800; ours FID 41.500, precision 0.500 against 8,012 "
        "train images; 1.5% (0.3% to 4.3%) of 200 images memorised (features: pixels)"
    )
    assert table.line(rows[1]) == "D, B: published nothing; ours not run"
    flat = pd.DataFrame(map(table.flat, rows))
    assert flat.loc[0, ["fid_train", "fid_train_low", "fid_train_high"]].to_list() == [
        41.5,
        40,
        43.25,
    ]
    assert math.isnan(flat.loc[0, "precision_train_low"])
    assert "recall_train" not in flat
    content = results._page("g", definition, [], results._lesions([]), ["g-second"], "0" * 40)
    content |= {"fidelity": rows, "figures_of_pools": table.shown(rows)}
    results._write(tmp_path / "page", content)
    html = (tmp_path / "page" / "index.html").read_text()
    for text in ("<i>20.500</i>", "40.000 to 43.250", "8,012 images, pixels", "1.5 %<small>0.31 %"):
        assert text in html, text
    assert html.count(">not run") == 2
    assert "&lt;b&gt;One" in html
    assert "Published precision" not in html, "neither is it stated nor asked for"
    written = pd.read_csv(tmp_path / "page" / "published.csv")
    assert written["memorised_share"].to_list()[0] == 0.015
    with pytest.raises(KeyError, match="fidelity"):
        pool.of_report(run, parameters(), {"images": 1, "memorised_count": 0})


def test_without_experiments_the_page_shows_the_published_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dvc_experiments, "finished", dict)
    monkeypatch.setattr("dermaflux.paths.GRIDS", tmp_path)
    results.run("vap_table1")
    printed = capsys.readouterr().out
    assert "ISIC 2018, StyleGAN: published FID 16.968, inception score 2.967" in printed
    assert "0 of 14 experiments" in printed
    page = (tmp_path / "vap_table1" / "index.html").read_text()
    assert page.count(">not run") == 30
    assert page.count("DermaFlux reads no such data set") == 12
    assert all(str(escape(note)) in page for note in grid.load("vap_table1").notes)
    assert len(pd.read_csv(tmp_path / "vap_table1" / "published.csv")) == 30


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"layout": "table"}, "the layout is 'table' and there are 3 rows of fidelity"),
        ({"fidelity": []}, "the layout is 'fidelity' and there are 0 rows"),
        ({"fidelity": [{"title": "A", "data": "D"}]}, "'A' of 'D' has run '' and why ''; name a"),
        ({"fidelity": [{"title": "A", "data": "D", "run": "third"}]}, "run 'third'"),
        ({"fidelity": [{"title": "A", "data": "D", "run": "first", "why": "x"}]}, "why 'x'"),
        ({"fidelity": [{"title": "A", "data": "D", "why": "x", "published": {"is": 2}}]}, "is"),
        (
            {"runs": [{"name": "first", "vary": {"seed": [0, 1]}}, {"name": "second"}]},
            "varies seed",
        ),
    ],
)
def test_a_table_without_its_runs_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises((ValueError, InputError), match=expected):
        small(**changes)


def test_a_folder_of_images_is_named_by_its_absolute_path() -> None:
    """A queued run executes in a copy of the checkout, which lacks what git does not track."""
    runs = grid.runs("vap_table1", grid.load("vap_table1"))
    folders = {run.overrides.get("synthesize.released.folder") for run in runs} - {None}
    assert folders == {str(ROOT / "pools" / f"stylegan-isic{year}") for year in (2018, 2019)}
