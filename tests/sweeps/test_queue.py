"""Queue and results on real DVC: a tiny repository whose stages write made-up predictions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from dermaflux import paths
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import RELEASED_BACKBONE, load
from dermaflux.sweeps import dvc_experiments, grid, probe, queue, results

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
GRID = """
description: made up
source: ours
set:
  train.architectures: [vit]
  train.seeds: [0, 1]
  train.arms: [real, mixture]
  evaluate.bootstrap_samples: 200
runs:
  - set: {caption.model: "it's, a [model]", real_fraction: null}
    vary: {ratio: [0, 1]}
  - set: {n_real: 0, train.arms: [mixture]}
    vary: {n_synthetic: [100]}
published:
  - {at: {ratio: 1}, over: {ratio: 0}, architecture: vit, figure: auc, value: 0.03}
"""
STAGE = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
from dermaflux.params.load import load
params, seed = load(), int(sys.argv[1])
assert params.caption.model == "it's, a [model]" or params.n_real == 0
draw = np.random.default_rng(seed)
labels = np.arange(200) % 2
noise = draw.normal(size=200)
frame = pd.DataFrame({"image_id": [f"s/{n:03d}" for n in range(200)],
                      "label": np.where(labels, "malignant", "benign")})
content = {}
for arm in params.train.arms:
    gain = 2.0 if arm == "mixture" and params.synthetic_wanted() else 1.0
    frame[arm] = 1 / (1 + np.exp(-(gain * (labels - 0.5) + noise)))
    order = np.asarray(frame[arm])
    above = (order[labels == 1][:, None] > order[labels == 0]).mean()
    content[arm] = {"auc": above, "validation_auc": 0.5,
                    "accuracy": float(((frame[arm] >= 0.5) == labels).mean())}
folder = Path("reports/evaluate") / f"vit-{seed}"
folder.mkdir(parents=True, exist_ok=True)
frame.to_csv(folder / "predictions.csv", index=False)
(folder / "roc").mkdir(exist_ok=True)
pd.DataFrame({"fpr": [0, 1], "tpr": [0, 1]}).to_csv(folder / "roc" / "real.csv", index=False)
Path(f"{folder}.json").write_text(json.dumps(content))
"""
DVC = """
stages:
  evaluate:
    matrix:
      architecture: ${train.architectures}
      seed: ${train.seeds}
    cmd: python stage.py ${item.seed}
    params: [n_real, ratio, n_synthetic, train]
    outs:
      - reports/evaluate/${item.architecture}-${item.seed}/predictions.csv
      - reports/evaluate/${item.architecture}-${item.seed}/roc
    metrics:
      - reports/evaluate/${item.architecture}-${item.seed}.json: {cache: false}
"""


def dvc(*words: str) -> None:
    from dvc.cli import main

    assert main(list(words)) == 0


def command(*words: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    completed = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe, "rates", lambda params, architecture: (100.0, 400.0))
    for key in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(key, "tester@example.org")
    command("git", "init", "-q")
    dvc("init", "-q")
    shipped = (ROOT / "params.yaml").read_text()
    shipped = shipped.replace("curve: [0.5, 2]", "curve: []").replace(RELEASED_BACKBONE, "tiny")
    (tmp_path / "params.yaml").write_text(shipped)
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / ".gitignore").write_text("/corpus\n/mlruns\n/reports/grids\n")
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "made-up.yaml").write_text(GRID)
    command("git", "add", "--all")
    command("git", "commit", "-qm", "A project")
    return tmp_path


def corpus() -> None:
    rows = [
        {"image_id": f"s/{n:03d}", "source": "s", "label": "benign", "split": split}
        for split, count in (("train", 400), ("validation", 30), ("test", 200))
        for n in range(count)
    ]
    for number, row in enumerate(rows):
        row["label"] = "malignant" if number % 2 else "benign"
    table.write(rows, paths.CORPUS, 64)


def test_a_grid_is_queued_once_run_by_dvc_and_read_back(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus()
    runs = grid.runs("made-up", grid.load("made-up"))
    with pytest.raises(InputError, match="none of the grid's 3 experiments is finished"):
        results.run("made-up")
    before = (project / "params.yaml").read_text()

    queue.run("made-up", dry=True)
    printed = capsys.readouterr().out
    # Real arm once for both ratios, the mixture at ratio 1, the synthetic one: two seeds each.
    assert "3 experiments, 6 classifiers to train (2 more are shared" in printed
    assert "3 of 3 experiments would be queued; dry run, none was" in printed
    # 100 + 200 + 100 images of 12 epochs and 2 seeds, 30 to score in each epoch of 6 trainings.
    assert f"about {(400 * 24 / 100 + 6 * 360 / 400) / 60:.0f} min" in printed
    dvc("queue", "status")
    assert "Queued" not in capsys.readouterr().out

    first = [f"--set-param={value}" for value in grid.command_line({"ratio": 1}, {"ratio": 0})]
    dvc("exp", "run", "--queue", "--name", runs[0].name, *first, "evaluate")
    queue.run("made-up", dry=False)
    printed = capsys.readouterr().out
    assert f"{runs[0].name}: queued, skipped" in printed
    assert "2 of 3 experiments queued" in printed
    dvc("queue", "remove", runs[0].name)
    queue.run("made-up", dry=False)
    assert "1 of 3 experiments queued" in capsys.readouterr().out
    assert (project / "params.yaml").read_text() == before

    command("dvc", "exp", "run", "--run-all")
    queue.run("made-up", dry=False)
    assert "0 of 3 experiments queued" in capsys.readouterr().out
    finished = dvc_experiments.finished()[dvc_experiments.commit("HEAD")]
    assert dvc_experiments.newest(runs) == (dvc_experiments.commit("HEAD"), finished)
    for run in runs:
        stored = YAML(typ="safe").load(
            dvc_experiments.Files(finished[run.name]).text("params.yaml")
        )
        expected = grid.with_overrides(YAML(typ="safe").load(before), run.overrides)
        assert stored == expected
        load.parse(stored)
    cached = "reports/evaluate/vit-0/roc/real.csv"
    assert cached not in command("git", "ls-tree", "-r", "--name-only", finished[runs[0].name])
    assert dvc_experiments.Files(finished[runs[0].name]).text(cached).startswith("fpr,tpr")
    with pytest.raises(InputError, match="the experiment has no roc.csv, or DVC's cache lacks it"):
        dvc_experiments.Files(finished[runs[0].name]).text("roc.csv")

    results.run("made-up")
    folder = paths.GRIDS / "made-up"
    assert len(pd.read_csv(folder / "table.csv")) == 5
    effects = json.loads((folder / "effects.json").read_text())
    rows = effects["families"]["Do synthetic images help?"]
    assert {row["comparisons"] for row in rows} == {2}
    assert effects["missing"] == []
    by_name = {(row["name"], row["metric"]): row for row in rows}
    gained = by_name["made-up-ratio-1: mixture minus real", "ROC-AUC"]
    per_seed = []
    for seed in range(2):
        content = json.loads(
            dvc_experiments.Files(finished["made-up-ratio-1"]).text(
                f"reports/evaluate/vit-{seed}.json"
            )
        )
        per_seed.append(content["mixture"]["auc"] - content["real"]["auc"])
    assert gained["value"] == pytest.approx(np.mean(per_seed))
    assert gained["low"] < gained["value"] < gained["high"]
    assert gained["verdict"] == "helps"
    assert gained["published"] == 0.03
    assert "made-up-n_synthetic-100 mixture minus made-up-ratio-0 real" in str(by_name)
    page = (folder / "index.html").read_text()
    assert "data:image/svg+xml" in page
    assert "http" not in page.replace("http://www.w3.org", "")

    command("git", "commit", "-qm", "Later", "--allow-empty")
    dvc("exp", "remove", "made-up-n_synthetic-100")
    results.run("made-up")
    assert "made-up-n_synthetic-100: not finished, left out" in capsys.readouterr().out
    assert "<code>made-up-n_synthetic-100</code>" in (folder / "index.html").read_text()


POOLS = """
description: made up
source: ours
layout: generators
set:
  train.architectures: [vit]
  train.seeds: [0, 1]
  train.arms: [real, mixture]
  train.curve: [0.25, 0.5]
  evaluate.bootstrap_samples: 100
pools:
  trained: {set: {generator: latent_ddpm}}
  released: {folder: released, licence: CC0}
  away: {folder: nowhere, licence: MIT}
"""
STRENGTHS = """
    strengths = {"real_x0.25": 0.6, "real_x0.5": 0.8, "real": 1.0}
    strengths |= {"latent_ddpm": 0.95, "released": 0.7}
    gain = strengths[params.generator if arm == "mixture" else arm]
"""
POOL = """
import json
from pathlib import Path
from dermaflux.core import table
from dermaflux.params.load import load
rows = [{"image_id": "a", "split": "train", "licence": f"of {load().generator}"}]
table.write(rows, Path("synthetic"), 64)
Path("reports").mkdir(exist_ok=True)
audit = {"images": 420, "memorised_count": 4, "kid": 0.05}
Path("reports/audit.json").write_text(json.dumps(audit))
"""
SYNTHESIZE = """
  synthesize:
    cmd: python pool.py
    params: [generator]
    outs: [synthetic]
    metrics:
      - reports/audit.json: {cache: false}
"""


def test_pools_are_queued_ranked_and_joined_by_a_submission(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus()
    stage = re.sub(r"    gain = .*\n", STRENGTHS, STAGE.replace("params.train.arms", "ARMS"))
    stage = stage.replace("draw = np", 'ARMS = params.training("vit").arms\ndraw = np')
    (project / "pool.py").write_text(POOL)
    (project / "stage.py").write_text(re.sub(r"assert params.caption.*\n", "", stage))
    with_audit = DVC.replace(
        "    params: [n_real", "    deps: [reports/audit.json]\n    params: [n_real"
    )
    (project / "dvc.yaml").write_text(
        with_audit.replace("n_synthetic,", "n_synthetic, generator,") + SYNTHESIZE
    )
    (project / "grids" / "made-up.yaml").write_text(POOLS)
    (project / ".gitignore").write_text("/corpus\n/mlruns\n/reports/grids\n/released\n/synthetic\n")
    for label in ("benign", "malignant"):
        (project / "released" / label).mkdir(parents=True)
        for number in range(210):
            (project / "released" / label / f"{number}.png").touch()
    command("git", "add", "--all")
    command("git", "commit", "-qm", "Pools")

    queue.run("made-up", dry=False)
    printed = capsys.readouterr().out
    assert "made-up-away is not run: synthesize.released.folder 'nowhere' does not" in printed
    # Two sizes of the curve and the real arm once, a mixture for each pool: two seeds each.
    assert "2 experiments, 10 classifiers to train (6 more are shared" in printed
    command("dvc", "exp", "run", "--run-all")
    results.run("made-up")
    printed = capsys.readouterr().out
    folder = paths.GRIDS / "made-up"
    content = json.loads((folder / "leaderboard.json").read_text())
    assert [(entry["pool"], entry["state"]) for entry in content["entries"]] == [
        ("trained", "measured"), ("released", "measured"), ("away", "not run"),
    ]  # fmt: skip
    assert [entry["licence"] for entry in content["entries"]] == ["of latent_ddpm", "CC0", "MIT"]
    assert all(entry["pool_hash"].endswith(".dir") for entry in content["entries"][:2])
    assert content["commit"] == dvc_experiments.commit("HEAD")
    assert "nowhere" in content["entries"][2]["reason"]
    assert str(project) not in (folder / "index.html").read_text()
    assert "not run: away" in printed

    theirs = {**content, "entries": content["entries"][:1]}
    theirs["entries"][0] |= {"pool": "theirs", "pool_hash": "another"}
    (project / "theirs.json").write_text(json.dumps(theirs))
    results.run("made-up", [project / "theirs.json"])
    shown = json.loads((folder / "leaderboard.json").read_text())["entries"]
    assert {entry["pool"]: entry["state"] for entry in shown}["theirs"] == "submitted"
    (project / "theirs.json").write_text(
        json.dumps({**theirs, "test": {**theirs["test"], "images": 9}})
    )
    with pytest.raises(InputError, match="refused: .*theirs.json.* another test split"):
        results.run("made-up", [project / "theirs.json"])
    assert "theirs" not in (folder / "index.html").read_text()


AUDITED = """
import json
from pathlib import Path
from dermaflux.params.load import load
value = {"value": 10.0 + load().seed, "low": 9.0, "high": 99.0}
row = {"fid": value, "images": 90, "reference_images": 300}
content = {"images": 100, "memorised_count": 10, "fidelity": {"train": row, "test": row}}
Path("reports").mkdir(exist_ok=True)
Path("reports/audit.json").write_text(json.dumps(content))
"""


def test_a_table_of_generators_is_queued_to_the_audit_and_read_back(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "audited.py").write_text(AUDITED)
    (project / "dvc.yaml").write_text(
        "stages:\n  audit:\n    cmd: python audited.py\n    params: [seed]\n"
        "    metrics: [{reports/audit.json: {cache: false}}]\n"
        "  evaluate:\n    cmd: python no-classifier-is-trained.py\n    deps: [reports/audit.json]\n"
    )
    (project / "grids" / "made-up.yaml").write_text(
        "description: d\nsource: s\nlayout: fidelity\nruns:\n- {name: ours, set: {seed: 7}}\n"
        "- name: away\n  set: {generator: released, synthesize.released.folder: nowhere}\n"
        "fidelity:\n- {title: A, data: D, run: ours, published: {fid: 20.0}}\n"
        "- {title: B, data: D, run: away, published: {fid: 30.0}}\n"
    )
    command("git", "add", "--all")
    command("git", "commit", "-qm", "A table of generators")
    queue.run("made-up", dry=False)
    printed = capsys.readouterr().out
    assert "made-up-away is not run: synthesize.released.folder 'nowhere' does not" in printed
    assert "pools to make and audit: 1; no classifier is trained" in printed
    command("dvc", "exp", "run", "--run-all")
    results.run("made-up")
    printed = capsys.readouterr().out
    assert "D, A: published FID 20.000; ours FID 17.000 against 300 train images; FID" in printed
    assert "10.0% (4.9% to 17.6%) of 100 images memorised" in printed
    assert "D, B: published FID 30.000; ours not run" in printed
    page = (paths.GRIDS / "made-up" / "index.html").read_text()
    assert page.count("9.000 to 99.000") == 2


def test_no_time_is_estimated_for_half_precision_without_a_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = load.load(Path(__file__).parents[2] / "params.yaml")
    train = shipped.train.model_copy(update={"precision": "bf16"})
    params = shipped.model_copy(update={"train": train})
    monkeypatch.setattr(probe, "rates", lambda *_: pytest.fail("a step was timed"))
    queue._estimate([params], None)
    assert "no time is estimated: train.precision is bf16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "found"),
    [("ignored", False), ("partly in git", False), ("git", True), ("dvc", True), ("inside", True)],
)
def test_a_path_that_the_copy_of_a_queued_run_lacks_is_refused(
    project: Path, place: str, found: bool
) -> None:
    """`inside`: the data folder is in git as far as it is not an output of DVC."""
    (project / "lesions/clinic").mkdir(parents=True)
    (project / "lesions/clinic/1.jpg").write_text("a picture")
    if place in ("ignored", "partly in git"):
        with (project / ".gitignore").open("a") as file:
            file.write("/lesions\n")
    if place == "partly in git":
        (project / "lesions/README").write_text("the images of the clinic")
        command("git", "add", "--force", "lesions/README")
    if place in ("dvc", "inside"):
        dvc("add", "-q", "lesions" if place == "dvc" else "lesions/clinic")
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("data: data ", "data: lesions ", 1))
    command("git", "add", "--all")
    command("git", "commit", "-qm", "data")
    if found:
        queue.run("made-up", dry=True)
        return
    with pytest.raises(InputError, match="nothing is queued: .* data 'lesions' is neither") as told:
        queue.run("made-up", dry=True)
    assert str(told.value).endswith(f"set it to {str(project / 'lesions')!r}")
