"""Positive and negative control of the whole pipeline, at the settings of `make controls`.

A pool of fresh lesions from the corpus's own law is what a perfect generator would make, so the
pipeline has to say that it helps and that an image is worth one real image; of the same pool with
permuted labels it must not.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from make_recipes import parameters, recipe

from dermaflux import paths, phantom
from dermaflux.core import table
from dermaflux.params import Params
from dermaflux.params.load import load
from dermaflux.phantom import pool
from dermaflux.phantom.folder import truth, write_images
from dermaflux.phantom.lesion import ATTRIBUTES
from dermaflux.reporting import effect_table, evidence_section
from dermaflux.statistics import evaluations, seed_means
from dermaflux.statistics.evidence import Evidence
from dermaflux.validation import mixture_gate

pytestmark = pytest.mark.slow
FIRST = ("corpus.ingest", "captions.caption", "validation.validate", "generators.finetune")
AFTER = ("generators.synthesize", "validation.validate_pool")
ONCE = ("audit.audit", "classifiers.pretrain")
"""What looks at images alone, of which both pools hold the same."""
CELLS = ("classifiers.train", "classifiers.evaluate")
LAST = ("registry.promote", "reporting.report", "reporting.summary")


@dataclass(frozen=True)
class Outcome:
    """What the pipeline said about a pool."""

    rows: dict[tuple[str, str], effect_table.Row]
    evidence: Evidence
    audit: dict[str, Any]
    page: str
    auc: dict[str, float]
    oracle: float
    """AUC of the true likelihood ratio against the pool's labels."""


def rendered(name: str) -> None:
    """A folder as `make controls` renders it, but all images of 128 pixels, which takes a third."""
    line = next(
        line for line in recipe("controls") if "--pool" in line and line.endswith(f"/{name}")
    )
    count, seed = (int(re.search(rf"--{o} (\d+)", line)[1]) for o in ("pool", "seed"))  # type: ignore[index]
    planned = pool.plan(count, seed, shuffled="--shuffled" in line)
    images = [replace(image, size=(128, 128)) for image in planned]
    folder = Path("data/phantom" if name == "phantom" else name)
    write_images(folder, images, 1)
    (folder / "phantom.csv").write_text(truth(images))


def settings(folder: str, **train: Any) -> Params:
    """Those of `make controls` on a pool, with fewer resamples and changes of `train`."""
    written = parameters("controls")
    written["data"], written["synthesize"]["released"]["folder"] = "data", folder
    written["train"] |= train
    written["evaluate"]["bootstrap_samples"] = written["promote"]["bootstrap_samples"] = 400
    Path("params.yaml").write_text(json.dumps(written))
    return load()


def run(params: Params, *stages: str) -> None:
    for stage in stages:
        module = importlib.import_module(f"dermaflux.{stage}")
        if stage not in CELLS:
            module.run(params)
            continue
        gate = (mixture_gate.check,) if stage.endswith("train") else ()
        for architecture in params.train.architectures:
            for seed in params.train.seeds:
                module.run(params, architecture, seed, *gate)


def likelihood_ratios(folder: Path) -> dict[str, float]:
    """Stem of an image -> log P(attributes | malignant) / P(attributes | benign)."""
    with (folder / "phantom.csv").open() as file:
        return {
            Path(row["path"]).stem: sum(
                math.log(law["malignant"][level] / law["benign"][level])
                for name, law in ATTRIBUTES.items()
                for level in [int(row[name]) - (name == "colours")]
            )
            for row in csv.DictReader(file)
        }


def oracle(images: pd.DataFrame, folder: Path) -> float:
    """AUC of the renderer's own P(malignant) against the labels of a table."""
    from sklearn.metrics import roc_auc_score

    ratios = likelihood_ratios(folder)
    scores = [ratios[Path(name).stem] for name in images["image_id"]]
    return float(roc_auc_score(images["label"] == "malignant", scores))


def outcome(params: Params) -> Outcome:
    cells = evaluations.load(params)
    means, level = seed_means.means(params, cells), params.evaluate.confidence
    (architecture,) = params.architectures()
    rows = effect_table.table(means, [architecture], params.arms(), "auc", level)
    said = evidence_section.build(params, means, "auc", int(cells[0].test["images"]))
    return Outcome(
        {(row.arm, row.against): row for row in rows},
        said[architecture].evidence,
        json.loads(paths.AUDIT_REPORT.read_text()),
        paths.REPORT_PAGE.read_text(),
        {arm: float(means[architecture, arm]["auc"].values.mean()) for arm in params.arms()},
        oracle(
            table.metadata(paths.SYNTHETIC, ["image_id", "label"]),
            Path(str(params.synthesize.settings("released").folder)),  # type: ignore[attr-defined]
        ),
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Both pools in one workspace, in which real images are trained on once."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("controls"))
        for folder in (".dvc", "mlruns"):
            Path(folder).mkdir()
        for name in ("phantom", "pool", "shuffled"):
            rendered(name)
        run(settings("pool"), *FIRST)
        found = {}
        # The second time without what does not depend on the labels of the pool.
        for name, arms in (
            ("pool", ["real", "mixture", "more_real"]),
            ("shuffled", ["real", "mixture"]),
        ):
            params = settings(name, arms=arms)
            run(params, *AFTER, *(() if found else ONCE), *CELLS, *LAST)
            found[name] = outcome(params)
        yield found


def test_perfect_images_help_and_are_worth_as_many_real_ones(outcomes: dict[str, Outcome]) -> None:
    found = outcomes["pool"]
    gain, rate = found.rows["mixture", "real"], found.evidence.rate
    assert gain.verdict == "helps"
    assert gain.effect.low > 0
    assert rate is not None
    assert rate.each.low is not None
    assert 0 < rate.each.low < 1
    assert rate.each.high is None or rate.each.high > 1
    assert found.rows["mixture", "more_real"].sign == 0
    assert not found.evidence.blind
    assert ">helps</span>" in found.page


def test_the_same_images_with_permuted_labels_do_not(outcomes: dict[str, Outcome]) -> None:
    found, perfect = outcomes["shuffled"], outcomes["pool"]
    gain, rate = found.rows["mixture", "real"], found.evidence.rate
    assert gain.sign <= 0
    assert gain.effect.high < perfect.rows["mixture", "real"].effect.value
    assert rate is not None
    assert rate.each.high is not None
    assert rate.each.high < 1
    assert found.auc["real"] == perfect.auc["real"]
    assert ">helps</span>" not in found.page


def test_the_renderers_own_probability_agrees(outcomes: dict[str, Outcome]) -> None:
    """A second route to what the labels are worth, without any network."""
    corpus = table.metadata(paths.CORPUS, ["image_id", "label"], "test")
    assert len(corpus) >= 1000
    best = oracle(corpus, Path("data/phantom"))
    assert best == pytest.approx(phantom.bayes_auc(), abs=0.03)
    assert outcomes["pool"].oracle == pytest.approx(phantom.bayes_auc(), abs=0.04)
    assert outcomes["shuffled"].oracle == pytest.approx(0.5, abs=0.1)
    for found in outcomes.values():
        assert max(found.auc.values()) < best
        assert found.audit["reasons"]["copy"] == 0
