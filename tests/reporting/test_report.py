from __future__ import annotations

import base64
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_up_evaluations
import pandas as pd
import pytest
from markupsafe import escape
from PIL import Image

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.errors import InputError
from dermaflux.params import Params, load
from dermaflux.params.arms import COLOURS
from dermaflux.reporting import (
    classifier_section,
    counts,
    evidence_section,
    pages,
    report,
    summary,
)
from dermaflux.statistics import evaluations, evidence, seed_means
from dermaflux.statistics.evaluations import Estimate


class _Page(HTMLParser):
    """Open elements, images, links and ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "id" in values:
            self.ids.append(str(values["id"]))
        if tag == "img":
            self.images.append(values)
        elif tag not in ("meta", "link", "br"):
            self.open.append(tag)
        if tag == "a":
            self.links.append(str(values["href"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_counts_add_up(workspace: Params) -> None:
    corpus = counts.corpus()
    assert corpus.total == {"in": 63, "quarantined": 3, "kept": 60}
    assert corpus.sources["in"].sum() == corpus.scales["in"].sum() == 63
    assert corpus.sources.loc["kaggle2"].to_list() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    splits = [f"{split} {label}" for split in table.SPLITS for label in counts.CLASSES]
    assert corpus.sources[splits].to_numpy().sum() == sum(corpus.splits.values()) == 60
    assert [(rule.name, rule.count) for rule in corpus.rules] == [("damaged", 2), ("too-small", 1)]
    assert corpus.rules[0].example == "image file is truncated"
    assert corpus.policies.loc["512"].to_list() == [0, 37, 85_303]
    assert corpus.policies.sum().to_list() == [48, 50, 508_344]
    paths.INGEST_REPORT.unlink()
    with pytest.raises(InputError, match=r"ingest\.json is missing"):
        counts.corpus()


def test_page_is_whole_self_contained_and_has_the_same_bytes_again(workspace: Params) -> None:
    report.run(workspace)
    text = paths.REPORT_PAGE.read_text(encoding="utf-8")
    assert paths.REPORT_PAGE.stat().st_size < 5e6
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert all(str(image["src"]).startswith("data:image/") for image in page.images)
    assert all(image["alt"] for image in page.images)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not re.search(r"<link\b|<script[^>]*\bsrc\b", text)
    assert str(Path.cwd()) not in text
    for words in (
        "Does synthetic help?",
        "real, strongly augmented",
        "too few to say",
        "They help, and more than",
    ):
        assert words in text, words
    assert "85,303" in text
    assert "count is 158 below the number of published images" in text
    assert "Not a medical device" in text
    assert "Bayes" not in text
    assert '<th scope="row">trainable parameters</th><td>114,688</td>' in text
    assert "0.5000 before training and 0.2500 after it" in text
    report.run(workspace)
    assert paths.REPORT_PAGE.read_text(encoding="utf-8") == text


def test_a_failed_effect_is_stated_plainly_and_bayes_shown_for_phantoms(workspace: Params) -> None:
    separation = made_up_evaluations.SEPARATION
    made_up_evaluations.malignancy(workspace, {**separation, "real": 6.0, "mixture": -1.0})
    known = report.read_json(paths.INGEST_REPORT)
    write_json(paths.INGEST_REPORT, {**known, "bayes_auc": 0.9071})
    text = report.render(workspace)
    assert ">harms<" in text
    assert text.count("<small>majority 0.688</small>") == 2  # both tables with accuracies
    assert "predicting the most frequent class gives an accuracy of 0.688" in text
    assert "They harm: a change of −" in text
    assert "0.907" in text
    assert "drawings" in text


def test_a_page_of_diagnoses(workspace: Params) -> None:
    many = workspace.model_copy(
        update={
            "real_fraction": 0.1,
            "train": workspace.train.model_copy(update={"labels": "diagnosis", "seeds": [0]}),
        }
    )
    made_up_evaluations.diagnoses(many)
    write_json(paths.INGEST_REPORT, {**report.read_json(paths.INGEST_REPORT), "bayes_auc": 0.9071})
    text = report.render(many)
    # The known limit is that of malignancy: no line of it among macro AUCs.
    assert "best possible (Bayes)" not in text
    assert "<small>AUC" not in text
    for words in (
        "Macro AUC",
        "<small>macro AUC (",
        "difference in the test macro AUC",
        "10 % of the real images + ",
        "melanoma (4)",
        "dermatofibroma",
        "no test images",
    ):
        assert words in text, words
    assert "Net benefit" not in text
    assert "there is one seed" in text


def test_a_student_is_compared_with_itself_without_a_teacher(
    workspace: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = workspace.model_copy(
        update={
            "train": workspace.train.model_copy(update={"arms": ["real", "mixture"], "seeds": [0]}),
            "distill": workspace.distill.model_copy(update={"students": ["densenet"]}),
        }
    )
    made_up_evaluations.malignancy(taught)
    text = report.render(taught)
    rows = re.findall(
        r'row">(\w+)</th><td class="text"><span class="dot \w+"></span>(.*?)</td>', text
    )
    alone = "real + synthetic − real + synthetic, no teacher"
    assert ("densenet", alone) in rows
    assert ("densenet", "real + synthetic − real only") in rows
    assert [name for name, compared in rows if compared == alone] == ["densenet"]
    assert "240 real + 240 synthetic, cross-entropy alone" in text
    summary.run(taught)
    printed = capsys.readouterr().out
    assert "densenet" in printed
    assert printed.count("no teacher") == 1
    assert re.search(r"no teacher .* [+−]0\.\d{3} .*\(−\s+mixture\)", printed)
    assert "gain. A student (densenet) learns" in " ".join(text.split())


PROBE = {
    "training_images": 36,
    "validation_images": 12,
    "mae": {"auc": 0.812, "auc_low": 0.7, "auc_high": 0.9},
    "random": {"auc": 0.7, "auc_low": 0.6, "auc_high": 0.8},
    "difference": {"auc": 0.112, "auc_low": 0.01, "auc_high": 0.2},
}


def pre_trained(workspace: Params, students: list[str], arms: list[str]) -> Params:
    """`vit_mae` from its own pre-training, and students of it."""
    raw = workspace.model_dump(by_alias=True)
    raw["train"] |= {"recipe": "mae", "architectures": ["vit_mae"], "arms": arms, "seeds": [0, 1]}
    raw["distill"] |= {"students": students, "teacher": "vit_mae", "arms": ["real"]}
    raw["promote"]["architecture"] = "vit_mae"
    return load.parse(raw)


def test_a_page_says_what_pre_training_saw_and_what_it_gains(
    workspace: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    params = pre_trained(workspace, ["resnext", "densenet"], ["real", "mixture", "scratch"])
    made_up_evaluations.malignancy(params)
    images = {"real": 1300, "synthetic": 59, "rejected": 1}
    facts = {"recipe": "mae", "architecture": "vit_mae", "steps": 60, "images": images}
    write_json(paths.PRETRAIN_REPORT, {**facts, "linear_probe": PROBE})
    paths.PRETRAIN_FIGURES.mkdir()
    Image.new("RGB", (30, 80)).save(paths.PRETRAIN_FIGURES / "grid.png")
    text = " ".join(report.render(params).split())
    for words in (
        "In both arms vit_mae starts from weights that were pre-trained on real and synthetic",
        "images (pretrain.images: both).",
        "In both arms resnext and densenet learn from vit_mae, which was trained on real and",
        "real only − real, from scratch",
        "learned from 1,300 real and 59 synthetic images without labels (1 synthetic",
        "an AUC of <strong>0.812</strong> (0.700 to 0.900); on features of random weights it has",
        "The difference is +0.112 (0.010 to 0.200). In brackets: 95 % bootstrap intervals",
        'href="#pretraining"',
        "and their reconstructions.",
    ):
        assert words in text, words
    # A line between classifiers, whatever the arms of each: two in each table.
    results = text[text.index('id="results"') : text.index('id="groups"')]
    assert results.count('<tr class="next"><th scope="row">') == 4
    summary.run(params)
    printed = capsys.readouterr().out
    assert re.search(r"scratch .* −0\.\d{3} +−0\.\d{3} to [−+]0\.\d{3} +(no clear|lower)", printed)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 2),
        ({"pretrain": {"images": "synthetic"}}, 2),
        ({"pretrain": {"images": "real"}}, 1),  # the teacher alone
        ({"pretrain": {"images": "real"}, "ratio": 0.0}, 0),
        ({"train": {"arms": ["real"]}}, 2),  # through the teacher's own start
        ({"train": {"arms": ["real"]}, "pretrain": {"images": "real"}}, 0),
    ],
)
def test_synthetic_images_beforehand_are_told_only_where_there_were_some(
    workspace: Params, changes: dict[str, Any], expected: int
) -> None:
    raw = pre_trained(workspace, ["resnext"], ["real", "mixture"]).model_dump(by_alias=True)
    for name, change in changes.items():
        raw[name] = {**raw[name], **change} if isinstance(change, dict) else change
    sentences = classifier_section.beforehand(load.parse(raw))
    assert len(sentences) == expected
    assert all(sentence.startswith("In both arms ") for sentence in sentences)


def test_a_page_without_pre_training_does_not_speak_of_it(workspace: Params) -> None:
    text = report.render(workspace)
    assert "Pre-training" not in text
    assert "In both arms" not in text


def test_the_page_has_the_arms_colours_and_no_setting_of_speed(
    workspace: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COLOURS, "mixture", "#123456")
    text = report.render(workspace)
    assert ".dot.mixture { background: #123456; }" in text
    plots = [base64.b64decode(svg) for svg in re.findall(r"image/svg\+xml;base64,([^\"]+)", text)]
    assert any(b"#123456" in plot for plot in plots)
    faster = workspace.runtime.model_copy(update={"accelerate": "--num_processes 8"})
    assert report.render(workspace.model_copy(update={"runtime": faster})) == text


def test_a_page_of_a_curve_and_of_an_arm_that_could_not_be(workspace: Params, capsys) -> None:
    train = workspace.train.model_copy(update={"curve": [0.5, 2.0, 4.0]})
    params = workspace.model_copy(update={"train": train})
    made_up_evaluations.malignancy(params)
    said = {"more_real": "more_real needs 240 further, 6 held", "real_x4": "real_x4 needs 480 of 6"}
    for path in paths.EVALUATIONS.glob("*.json"):
        content = json.loads(path.read_text())
        del content["real_x4"]
        write_json(path, {**content, "shortages": said})
    text = report.render(params)
    assert "More_real needs 240 further, 6 held." in text
    assert "Real_x4 needs 480 of 6." in text
    assert '<span class="dot real_x0.5"></span>120 real</td>' in text
    assert '<span class="dot real_x2"></span>480 real</td>' in text
    assert r".dot.real_x0\.5 { background: " + COLOURS["real"] in text
    assert not re.search(r"dot (real_x4|more_real)", text)
    assert "real only, × 2</td>" in text
    assert "real only, × 2 −" not in text  # no effect
    assert "real + synthetic − real + synthetic, labels shuffled" in text
    capsys.readouterr()
    summary.run(params)
    printed = capsys.readouterr().out
    assert all(printed.count(sentence) == 1 for sentence in said.values())
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    of_arm = {arm: [line for line in lines if line[:2] == ["real", arm]] for arm in ("x2", "x0.5")}
    assert [len(line) for rows in of_arm.values() for line in rows] == [6] * 4  # no effect
    assert sum(line == ["(−", "mixture)"] for line in lines) == 2  # of shuffled


def test_the_first_screen_says_what_an_image_is_worth_and_what_could_be_seen(
    workspace: Params, capsys
) -> None:
    arms = ["real", "mixture", "more_real"]
    train = workspace.train.model_copy(update={"arms": arms, "curve": [0.5]})
    params = workspace.model_copy(update={"train": train})
    made_up_evaluations.malignancy(params)
    page = report.render(params)
    findings = page[page.index('id="findings"') : page.index('class="cards"')]
    means = seed_means.means(params, evaluations.load(params))
    found = evidence_section.build(params, means, "auc", 12)
    assert found.keys() == {"vit", "resnext"}
    for each in found.values():
        assert len(each.sentences) >= 3
        assert all(str(escape(sentence)) in findings for sentence in each.sentences)
    assert "As many further real images (240) change it by" in findings
    assert "This run sees a gain of" in findings
    assert "with a probability of 80 %" in findings
    assert '<th scope="col">Visible from</th>' in page
    capsys.readouterr()
    summary.run(params)
    assert found["vit"].sentences[0] in capsys.readouterr().out
    assert evidence.real_sizes(params) == (
        {"real_x0.5": 120, "real": 240, "more_real": 480}, 240
    )  # fmt: skip
    share = params.model_copy(update={"real_fraction": 0.5})
    assert evidence.real_sizes(share) == ({}, 0)


def test_text_of_the_data_cannot_break_the_page(workspace: Params) -> None:
    rows = pd.read_csv(paths.QUARANTINE)
    rows.loc[0, "reason"] = "<script>alert('x')</script>"
    rows.to_csv(paths.QUARANTINE, index=False)
    assert "<script>" not in report.render(workspace)


def test_optional_parts_may_be_absent_but_not_the_evaluations(workspace: Params) -> None:
    for path in (paths.AUDIT_REPORT, paths.VALIDATION_REPORT, paths.PROMOTE_REPORT):
        path.unlink()
    shutil.rmtree(paths.GENERATOR)
    text = report.render(workspace)
    assert text.count("has not run") == 3
    (paths.EVALUATIONS / "vit-0.json").unlink()
    with pytest.raises(InputError, match=r"vit-0\.json is missing"):
        report.render(workspace)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"folder": "released", "images": {"benign": 3000}},
            "images.benign</th><td>3,000</td>",
        ),
        (
            {"imported": "a/<b>@c", "rank": 64, "complete": True},
            "imported</th><td>a/&lt;b&gt;@c</td>",
        ),
    ],
)
def test_whatever_a_generator_reports_is_shown(
    workspace: Params, facts: dict[str, object], expected: str
) -> None:
    write_json(paths.GENERATOR / "finetune.json", facts)
    (paths.GENERATOR / "loss.csv").unlink()
    assert expected in report.render(workspace)


def test_summary_names_what_the_demo_promises(
    workspace: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    known = report.read_json(paths.INGEST_REPORT)
    write_json(paths.INGEST_REPORT, {**known, "bayes_auc": 0.9071})
    summary.run(workspace)
    printed = capsys.readouterr().out
    for part in ("63", "128 px", "8", "helps", "random features", "0.907", "vit-1/mixture"):
        assert part in printed
    assert "reports/index.html" in printed


def test_report_imports_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, dermaflux.reporting.report, dermaflux.reporting.summary\n"
        "assert not {'torch', 'mlflow', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_numbers_are_written_for_readers() -> None:
    assert pages.number(-0.12345) == "−0.123"
    assert pages.number(math.nan) == "–"
    assert pages.percent(0.95) == "95 %"
    assert pages.interval(Estimate(0.1, -0.05, 0.2), sign=True) == "−0.050 to +0.200"
