"""The evidence of the page's first screen in MLflow, read back from the page itself."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import Any

import made_up_evaluations
import pytest

from dermaflux import paths
from dermaflux.classifiers.logging import mlflow_runs
from dermaflux.core.files import read_json
from dermaflux.params import Params, load
from dermaflux.reporting import effect_table, evidence_section, report
from dermaflux.reporting.evidence_log import CEILING, DETECTABLE, EQUIVALENT, GAIN, figures
from dermaflux.statistics import evaluations, seed_means
from dermaflux.tracking import runs

SEPARATION = {"real_x0.5": 0.2, "real": 0.9, "more_real": 2.0, "mixture": 1.4}
NUMBER = r"[+−]?[\d,]+(?:\.\d+)?"


def evaluated(params: Params) -> dict[str, str]:
    """MLflow runs of the mixture on the cells at hand; architecture -> id of their parent."""
    parents = {}
    for architecture in params.architectures():
        for seed in params.train.seeds:
            parameters = mlflow_runs.arm_parameters(params, architecture, seed, "mixture", 240)
            above = mlflow_runs.parent(params, parameters, "evaluate")
            name = mlflow_runs.name(parameters)
            with runs.start(mlflow_runs.TESTING, name, parameters, [], parent=above) as run:
                run.metrics({"AUC": 0.8})
                run.outputs(paths.EVALUATIONS / f"{paths.cell(architecture, seed)}.json")
                tags = run.client.get_run(run.run_id).data.tags
                parents[architecture] = tags["mlflow.parentRunId"]
    return parents


def first_screen(architecture: str) -> str:
    """What the page says of one architecture, without markup."""
    page = paths.REPORT_PAGE.read_text()
    findings = page[page.index('id="findings"') : page.index('class="cards"')]
    (item,) = re.findall(rf"<li><strong>{architecture}</strong>:(.*?)</li>", findings, re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", item)).split())


def numbers(pattern: str, text: str) -> list[float]:
    """The groups of the pattern as numbers."""
    found = re.search(pattern.replace("#", f"({NUMBER})"), text)
    assert found, (pattern, text)
    return [float(group.replace("−", "-").replace(",", "")) for group in found.groups()]


def data(parent: str) -> Any:
    return runs.connect().get_run(parent).data


@pytest.fixture
def params(workspace: Params) -> Params:
    Path(".dvc").mkdir()
    arms = ["real", "mixture", "more_real"]
    train = workspace.train.model_copy(update={"arms": arms, "curve": [0.5]})
    changed = workspace.model_copy(update={"train": train})
    made_up_evaluations.malignancy(changed, SEPARATION)
    return changed


def check_against_the_page(architecture: str, logged: Any) -> None:
    """Every number of the first screen, to the digits that it shows."""
    text, metrics, tags = first_screen(architecture), logged.metrics, logged.tags
    (effect, low, high, *_) = numbers(r"change the test AUC by # \(# to #,", text)
    assert [round(metrics[f"AUC_gain{end}"], 3) for end in ("", "_low", "_high")] == [
        effect, low, high,
    ]  # fmt: skip
    assert f"). {tags['finding'][0].upper()}{tags['finding'][1:]}." in text
    row = rf"<strong>{architecture}</strong>\n<span class=\"tag \w*\">{tags['verdict']}</span>"
    assert re.search(row, paths.REPORT_PAGE.read_text())
    ceiling = numbers(r"further real images \(240\) change it by # \(# to #\)", text)
    keys = [f"AUC_gain_ceiling{end}" for end in ("", "_low", "_high")]
    assert [round(metrics[key], 3) for key in keys] == ceiling
    assert numbers("This run sees a gain of # or more", text) == [
        round(metrics["AUC_gain_detectable"], 3)
    ]


@pytest.mark.slow
def test_mlflow_holds_what_the_first_screen_says(params: Params) -> None:
    parents = evaluated(params)
    report.run(params)
    logged = {name: data(parent) for name, parent in parents.items()}
    shown = read_json(paths.COMPARED, "report")
    assert sum(len(section) for section in shown.values()) <= 30  # columns of `dvc exp show`
    for architecture, each in logged.items():
        check_against_the_page(architecture, each)
        told = {name.replace("AUC", "auc"): value for name, value in each.metrics.items()}
        assert shown[architecture].items() - told.items() == {
            ("auc_real", shown[architecture]["auc_real"]),
            ("auc_mixture", shown[architecture]["auc_mixture"]),
        }
        gain = shown[architecture]["auc_mixture"] - shown[architecture]["auc_real"]
        assert gain == pytest.approx(shown[architecture]["auc_gain"])

    worth, each = "equivalent_real_images", "equivalent_real_images_per_synthetic"
    metrics, tags = logged["vit"].metrics, logged["vit"].tags
    said = numbers(
        r"worth at least # real ones \(# or more\): at least # each \(# or more\)",
        first_screen("vit"),
    )
    assert [round(metrics[key]) for key in (worth, f"{worth}_low")] == said[:2]
    assert [round(metrics[key], 2) for key in (each, f"{each}_low")] == said[2:]
    assert (tags[f"{worth}.bound"], tags[f"{each}.bound"]) == ("at least", "at least")
    assert not {f"{worth}_high", f"{each}_high", f"{worth}.missing"} & {*metrics, *tags}
    untold = logged["resnext"]
    assert not [name for name in untold.metrics if name.startswith(worth)]
    reason = untold.tags[f"{each}.missing"]
    assert f"{reason.replace('-', '−')}." in first_screen("resnext")

    # A later report with fewer sizes leaves no number of the earlier one.
    fewer = params.train.model_copy(update={"curve": []})
    report.run(params.model_copy(update={"train": fewer}))
    later = data(parents["vit"])
    check_against_the_page("vit", later)
    assert all(math.isnan(later.metrics[key]) for key in (worth, each, f"{worth}_low"))
    assert f"{worth}.bound" not in later.tags
    assert f"is not known: {later.tags[f'{worth}.missing']}." in first_screen("vit")
    assert "3 or more numbers of real images, and there are 2" in later.tags[f"{each}.missing"]


def test_where_real_images_leave_no_room_nothing_is_claimed(params: Params) -> None:
    """Though the smallest size is below the ceiling, so that a curve could be fitted."""
    perfect = dict.fromkeys(SEPARATION, 50.0) | {"real_x0.5": 0.5}
    made_up_evaluations.malignancy(params, perfect)
    report.run(params)
    for name in params.architectures():
        text = first_screen(name)
        assert "This run could not have seen it: the AUC " in text
        assert "is not known: real images alone reach 1.0000 (0.995 and more is the" in text
        assert "gain this run could have seen is not known: the arms differ alike in all" in text
        assert "This run sees a gain" not in text
        assert "worth at least" not in text


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "no run of these evaluations of vit and resnext"),
        ("http://127.0.0.1:9", "cannot be used"),
    ],
)
def test_a_store_without_the_runs_costs_one_sentence(
    params: Params, address: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    report.run(params)
    assert paths.REPORT_PAGE.is_file()
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not Path("mlruns").exists()


@pytest.mark.parametrize(
    ("changes", "without", "reasons"),
    [
        ({"ratio": 0.0}, (CEILING, EQUIVALENT), ["ratio is 0, so the mixture has no synthetic"]),
        ({"real_fraction": 0.5}, (EQUIVALENT,), ["real_fraction draws a share of the training"]),
        (
            {"train": {"arms": ["real", "mixture"]}},
            (CEILING, EQUIVALENT),
            ["more_real is not among train.arms", "real images, and there are 2; add some"],
        ),
    ],
)
def test_what_cannot_be_computed_has_its_reason_in_a_sentence_and_a_tag(
    params: Params, changes: dict[str, Any], without: tuple[str, ...], reasons: list[str]
) -> None:
    raw = params.model_dump(by_alias=True)
    for name, value in changes.items():
        raw[name] = {**raw[name], **value} if isinstance(value, dict) else value
    changed = load.parse(raw)
    means = seed_means.means(changed, evaluations.load(changed))
    said = evidence_section.build(changed, means, "auc", 12)
    rows = effect_table.table(means, changed.architectures(), changed.arms(), "auc", 0.95)
    for name, sentences in evidence_section.by_architecture(changed, said).items():
        metrics, tags = figures(changed, name, rows, said)
        assert not {*without} & {*metrics}
        assert {GAIN, DETECTABLE} <= {*metrics}
        missing = {tags[f"{each}.missing"] for each in without}
        assert all(f"is not known: {reason}." in " ".join(sentences) for reason in missing)
        assert all(any(reason in each for each in missing) for reason in reasons)
