"""The graph and the plots as a person reads them, on a small DVC repository and on this one."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draw_architecture import read_stages
from ruamel.yaml import YAML

from dermaflux.errors import InputError
from dermaflux.sweeps.views import dag, plots

ROOT = Path(__file__).parents[2]
PIPELINE = """
vars: [{code: src}]
stages:
  first: {cmd: "true", outs: [a: {cache: false}]}
  cell:
    matrix: {name: "${names}"}
    cmd: "true"
    deps: [a]
    outs: ["${item.name}.out": {cache: false}]
plots:
  - ROC of ${names[0]}:
      template: simple
      x: fpr
      y: {"${names[0]}.csv": tpr, other.csv: tpr}
      x_label: false positive rate
"""


def git(folder: Path, *words: str) -> None:
    names = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits; the second one's curve is higher."""
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    Path("dvc.yaml").write_text(PIPELINE)
    Path("params.yaml").write_text("names: [resnext, vit]\n")
    Path("other.csv").write_text("fpr,tpr\n0,0\n0.5,0.25\n1,1\n")
    for height in (0.5, 0.75):
        Path("resnext.csv").write_text(f"fpr,tpr\n0,0\n0.5,{height}\n1,1\n")
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "--message", str(height))
    return tmp_path


def values(axis: Any) -> list[float]:
    """Numbers of a curve, which plotly may have packed."""
    if isinstance(axis, dict):
        return np.frombuffer(base64.b64decode(axis["bdata"]), axis["dtype"]).tolist()
    return list(axis)


def test_the_page_has_the_curves_of_every_revision_and_loads_nothing(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plots.run(["HEAD~1", "HEAD"])
    page = plots.PAGE.read_text()
    assert "1 charts of 4 curves" in capsys.readouterr().out
    assert not re.search(r"<script[^>]*\bsrc=|<link\b|@import", page)
    assert "<h2>ROC of resnext</h2>" in page  # the parameter's first name, not one written down
    drawn = page[page.rindex("Plotly.newPlot(") :]
    curves = json.JSONDecoder().raw_decode(drawn[drawn.index("[") :])[0]
    found = {curve["name"]: values(curve["y"]) for curve in curves}
    assert found == {
        "resnext (HEAD~1)": [0, 0.5, 1], "resnext (HEAD)": [0, 0.75, 1],
        "other (HEAD~1)": [0, 0.25, 1], "other (HEAD)": [0, 0.25, 1],
    }  # fmt: skip
    assert "false positive rate" in drawn
    with pytest.raises(InputError, match="cannot be read .*name revisions"):
        plots.run(["no-such-branch"])


def test_the_graph_is_short_and_complete(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dag.run()
    assert capsys.readouterr().out == "first\ncell   after  first\n"
    monkeypatch.chdir(ROOT)
    dag.run()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    joined = re.sub(r"\n +", " ", "\n".join(lines))
    shown = {}
    for line in joined.splitlines():
        name, _, others = line.partition("  after  ")
        shown[name.strip()] = set(re.sub(r" \(\d+\)", "", others).split(", ")) - {""}
    # A second route to the same graph: who writes what others read, from the text of dvc.yaml.
    stages = read_stages(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text()))
    writers = {path: stage.name for stage in stages for path in stage.writes}
    for stage in stages:
        if stage.name in shown:
            read = {writers[path] for path in stage.reads if path in writers} - {stage.name}
            assert read & shown.keys() <= shown[stage.name], stage.name
    assert list(shown).index("ingest") < list(shown).index("report") == len(shown) - 1


@pytest.mark.parametrize("command", [dag.run, lambda: plots.run([])])
def test_outside_a_repository_there_is_a_sentence(
    command: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not a DVC repository"):
        command()


def test_the_top_plot_follows_the_parameters() -> None:
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        (listed,) = repo.index._plots.values()
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())["train"]
    cell = f"{params['architectures'][0]}-{params['seeds'][0]}"
    assert cell not in (ROOT / "dvc.yaml").read_text()
    for definition in listed[0].values():
        assert set(definition["y"]) == {
            f"reports/evaluate/{cell}/roc/{arm}.csv" for arm in ("real", "mixture")
        }
