"""Parts of the page: what cannot be shown is said in its place, and the rest stands."""

from __future__ import annotations

import base64
import io
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.params import Params
from dermaflux.reporting import classifier_section, counts, effect_table, report
from dermaflux.reporting.bundle import libraries
from dermaflux.reporting.gallery import tiles
from dermaflux.reporting.lineage import artefacts, ledger
from dermaflux.statistics import evaluations, seed_means


def test_bad_input_is_said_in_its_place_and_the_rest_stands(workspace: Params) -> None:
    for shard in paths.SYNTHETIC.glob("*.parquet"):
        shard.unlink()
    paths.CAPTIONS.mkdir()
    (paths.CAPTIONS / "captions-00000-of-00001.parquet").write_text("no table")
    paths.PROMOTE_REPORT.write_text("{")
    control = {
        "agreement": {"value": 0.9, "low": 0.8, "high": 1.0},
        "tone": {"value": None, "low": None, "high": None, "reason": "needs 10 images <b>"},
    }
    audit = {"memorised_count": 0, "kid": 0.12, "attribute_control": control}
    write_json(paths.AUDIT_REPORT, audit)
    text = " ".join(report.render(workspace).split())
    for words in (
        "<code>synthetic/</code> holds none; run <code>dvc repro synthesize</code>",
        "<strong>synthetic</strong>, malignant: none",
        "Not shown:</strong> captions/captions-00000-of-00001.parquet is damaged",
        "Not shown:</strong> reports/promote.json is damaged",
        'href="#audit-attribute-control">Attribute control</a>',
        "<td>0.9000 (0.8000 to 1.0000)</td>",
        "none: needs 10 images &lt;b&gt;",
        "They help, and more than",
        "reports/ingest.json has no counts per dataset of the paper",
    ):
        assert words in text, words


def test_tiles_are_the_images_that_they_name(workspace: Params) -> None:
    rejected = ["synthetic/train-benign-000"]
    shown = tiles.gallery(3, rejected)
    synthetic = shown.tiles["benign"]["synthetic"]
    assert {tile.verdict for tile in synthetic} == {"kept", "rejected"}
    assert [tile.image_id for tile in synthetic if tile.verdict == "rejected"] == rejected
    assert len(shown.tiles["malignant"]["real"]) == 3
    stored = table.pixels(paths.CORPUS, [shown.tiles["benign"]["real"][0].image_id], tiles.SIDE)
    content = base64.b64decode(shown.tiles["benign"]["real"][0].uri.split(",")[1])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    assert np.abs(pixels - next(iter(stored.values()))).mean() < 4  # JPEG of a noisy image
    assert shown.filters["verdict"] == ["kept", "real", "rejected"]
    paths.REJECTED.unlink()  # nothing is called kept that nobody looked at
    unaudited = report._gallery(workspace).tiles["benign"]["synthetic"]
    assert {tile.verdict for tile in unaudited} == {"not audited"}


def test_charts_are_valid_and_hold_the_figures_of_the_tables(workspace: Params) -> None:
    from plotly import graph_objects

    results = classifier_section.build(workspace, 0.9)
    charts = results["charts"]
    assert charts.keys() >= {"arms", "gains", "effects", "worth-vit", "roc-vit", "decision-vit"}
    for chart in charts.values():
        content = chart.data()
        graph_objects.Figure(content["data"], content["layout"])  # refuses what plotly lacks
        assert json.loads(libraries.json_text(content)) == content
    diamonds = [
        trace for trace in charts["arms"].traces if trace["marker"].get("symbol") == "diamond"
    ]
    means = seed_means.means(workspace, evaluations.load(workspace))
    for trace, mean in zip(diamonds, means.values(), strict=True):
        value = mean["auc"].values.mean()
        interval = mean["auc"].estimate(0.95)
        assert trace["x"] == [pytest.approx(value, abs=1e-5)]
        assert trace["x"][0] + trace["error_x"]["array"][0] == pytest.approx(
            interval.high, abs=1e-4
        )
        assert f"<b>{value:.3f}</b>" in trace["hovertemplate"]
    question = effect_table.question(results["effects"], "vit")
    assert question is not None
    gain = charts["gains"].traces[0]
    assert gain["x"] == [pytest.approx(question.effect.value, abs=1e-4)]
    reached = [trace["x"] for trace in charts["gains"].traces if "seen" in trace["hovertemplate"]]
    assert reached[0] == [pytest.approx(question.detectable, abs=1e-4)]


class _Store:
    """An MLflow store with runs of one artefact."""

    def __init__(self, runs: list[Any], watts: list[float]) -> None:
        self._runs, self._watts = runs, watts

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="7") if name == "training" else None

    def search_runs(self, ids: list[str], search: str, **options: Any) -> list[Any]:
        assert ids == ["7"]
        assert search == "tags.`output.models/classifiers/vit-0` = 'abc'"
        return self._runs

    def get_metric_history(self, run_id: str, name: str) -> list[Any]:
        return [SimpleNamespace(value=value) for value in self._watts]


def run(name: str, arm: str, start: float, hours: float, **metrics: float) -> Any:
    times = {"start_time": start, "end_time": start + hours * 3_600_000}
    info = SimpleNamespace(run_id=name, status="FINISHED", **times)
    return SimpleNamespace(info=info, data=SimpleNamespace(params={"arm": arm}, metrics=metrics))


def test_hours_and_energy_are_those_of_the_first_run_of_each_arm() -> None:
    power = {"system/gpu_0_power_usage_watts": 1.0, "system/gpu_1_power_usage_watts": 1.0}
    runs = [
        run("first", "real", 0, 2.0, **power),
        run("again", "real", 10, 0.01),  # from its checkpoint
        run("other", "mixture", 20, 0.5),
    ]
    artefact = artefacts.Artefact("models/classifiers/vit-0", "training", "abc", "run-x")
    client: Any = _Store(runs, [100.0, 300.0])
    work = ledger._work(client, artefact, "http://store")
    assert work is not None
    assert work.hours == pytest.approx(2.5)
    assert work.kilowatt_hours == pytest.approx(2 * 200 * 2 / 1000)  # two GPUs of 200 W, two hours
    assert work.metered_hours == pytest.approx(2.0)  # of the mixture's half hour nothing is known
    assert work.addresses["mixture"] == "http://store/#/experiments/7/runs/other"
    corpus = artefacts.Artefact("corpus", "corpus", "abc", "run-corpus")
    assert ledger._work(client, corpus, "http://store") is None


def test_a_number_leads_to_its_artefact_and_to_the_run_where_that_is_known() -> None:
    path = "reports/evaluate/vit-3.json"
    known = artefacts.Links({path: "run-vit-3"}, 3, {})
    assert known.arm("vit", "mixture") == "#run-vit-3"
    assert known.arm("resnext", "mixture") == ""
    work = ledger.Work(1.0, None, 0.0, "http://a", {"mixture": "http://m"})
    assert artefacts.Links({path: "x"}, 3, {path: work}).arm("vit", "mixture") == "http://m"


def test_table_1_sets_the_corpus_beside_each_dataset_of_the_paper(workspace: Params) -> None:
    known = report.read_json(paths.INGEST_REPORT)
    assert counts.corpus().table1 == {}
    stated = {
        name: {"title": name.upper(), "training": 1000, "test": 90, "scale": 512}
        for name in ("isic2019", "ddi")
    }
    write_json(paths.INGEST_REPORT, {**known, "paper": {**known["paper"], "datasets": stated}})
    rows = counts.corpus().table1
    assert rows["isic2019"].here == {"in": 37, "quarantined": 1, "training": 36, "test": 0}
    assert rows["isic2019"].paper == {"training": 1000, "test": 90}
    assert rows["ddi"].here is None
