"""What later stages would refuse, told before work that costs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ingested import DEFAULTS, settings
from ruamel.yaml import YAML
from typer.testing import CliRunner

from dermaflux import conditions, paths
from dermaflux.cli import app
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.generators.released.sampling import collect
from dermaflux.params import RELEASED_BACKBONE
from dermaflux.params.load import parse


@pytest.fixture
def small_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Rows of a corpus of 40 images of each class in each split; the test writes them."""
    monkeypatch.chdir(tmp_path)
    return [
        {"image_id": f"s/{split}{n}", "source": "s", "split": split, "scale": 128,
         "label": CLASSES[n % 2], "diagnosis": "nevus"}
        for split in table.SPLITS
        for n in range(80)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "change", "expected"),
    [
        ({}, None, None),
        ({"n_real": 82, "ratio": 1}, None, "n_real 82 needs 41 benign .* lower n_real to 80"),
        ({"real_fraction": 1.0, "ratio": 6}, None, "480 synthetic images but .* is 420"),
        ({"finetune": {"scales": [512]}}, None, "finetune.scales .* leave no benign"),
        ({"train": {"labels": "diagnosis"}, "real_fraction": 1.0}, None, "1 of 1 diagnoses"),
        ({"train": {"arms": ["random_features"]}}, None, "contains no candidate"),
        ({"train": {"models": {"name": "vitt"}}}, None, "timm has no model 'vitt'"),
        ({"audit": {"features": "/nowhere"}}, None, "audit.features '/nowhere' contains no"),
        ({"audit": {"features": "timm:resnet19", "weights": "a"}}, None, "a' is not a file; name"),
        (
            {"synthesize": {"conditions": "diagnosis", "proportions": {"naevus": 1}}},
            None,
            "the class 'naevus' .* 0 images of it; write nevus",
        ),
        (
            {"synthesize": {"proportions": {"benign": 0.9, "malignant": 0.1}}, "ratio": 2},
            None,
            "needs 80 synthetic malignant images but of 420 planned ones about 42",
        ),
        ({"synthesize": {"conditions": "diagnosis", "images": 80}}, None, None),
        (
            {"synthesize": {"select": "uncertain", "candidates": 1000, "images": 10_000_000}},
            None,
            r"needs 492,011\.5 GB .*; free some space, or lower synthesize.candidates 1000 or",
        ),
        ({}, ("test", "malignant"), "the test split holds 40 benign and 0 malignant images"),
        ({}, ("train", "malignant"), "the train split holds"),
        ({"validate": {"malignant_fraction": {"test": [0, 0.1]}}}, None, "50.0% of the test"),
    ],
)
def test_what_later_stages_refuse_is_known_from_the_counts(
    small_corpus: list[dict[str, Any]],
    changes: dict[str, Any],
    change: tuple[str, str] | None,
    expected: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [row for row in small_corpus if (row["split"], row["label"]) != change]
    table.write(rows, paths.CORPUS, 64)
    raw = settings().model_dump(by_alias=True) | {"n_real": 80, "ratio": 1}
    for name, value in changes.items():
        raw[name] = {**raw[name], **value} if isinstance(value, dict) else value
    if "models" in changes.get("train", {}):
        models = settings().model_dump(by_alias=True)["train"]["models"]
        raw["train"]["models"] = {**models, "vit": {**models["vit"], "name": "vitt"}}
    sentences = list(conditions.unmet(parse(raw)))
    if expected is None:
        assert sentences == []
        return
    assert re.search(expected, sentences[0]), sentences
    conditions.warn(parse(raw))
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == f"warning: a later stage will stop: {sentences[0]}"


def test_a_pool_may_ask_for_no_diagnosis_that_finetune_does_not_show(
    small_corpus: list[dict[str, Any]],
) -> None:
    """Each image has its own here, and the generator reads no captions that could name it."""
    rows = [row | {"diagnosis": row["image_id"]} for row in small_corpus]
    table.write(rows, paths.CORPUS, 64)
    raw = settings().model_dump(by_alias=True) | {"n_real": 80, "generator": "latent_ddpm"}
    raw["synthesize"]["conditions"] = raw["finetune"]["latent_ddpm"]["condition"] = "diagnosis"
    for most, missing in ((0, None), (20, "' and 59 more but the 20 images of finetune.scales")):
        raw["finetune"]["maximum_images"] = most
        sentences = list(conditions.unmet(parse(raw)))
        assert [missing in sentence for sentence in sentences] == [True] * (missing is not None)


@pytest.mark.parametrize(
    ("left_out", "refused"), [(("test", "malignant"), True), (("scale", 512), False)]
)
def test_captions_of_a_corpus_that_validate_refuses_are_not_paid_for(
    small_corpus: list[dict[str, Any]], left_out: tuple[str, str], refused: bool
) -> None:
    """What only other parameters would mend, such as n_real 240, keeps no caption from use."""
    rows = [row for row in small_corpus if (row["split"], row["label"]) != left_out]
    table.write(rows, paths.CORPUS, 64)
    text = DEFAULTS.read_text().replace(RELEASED_BACKBONE, "tiny")
    text = text.replace("captioner: measured", "captioner: llama")
    # caption.revision is the first of these.
    Path("params.yaml").write_text(text.replace("  revision: null", f"  revision: {'a' * 40}", 1))
    outcome = CliRunner().invoke(app, ["caption"])
    reason = "caption does not start, since validate would stop: the test split holds 40 benign"
    assert str(outcome.exception).startswith(reason) == refused, outcome.output


@pytest.mark.parametrize("stage", ["selector", "synthesize"])
def test_candidates_that_no_disk_holds_are_told_before_any_is_planned(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To plan 10,000 million images takes days."""
    monkeypatch.chdir(tmp_path)
    raw = YAML(typ="safe").load(DEFAULTS.read_text())
    raw["synthesize"] |= {"select": "uncertain", "candidates": 1000, "images": 10_000_000}
    raw["backbone"]["repository"] = "tiny"
    with Path("params.yaml").open("w") as file:
        YAML(typ="safe").dump(raw, file)
    error = CliRunner().invoke(app, [stage]).exception
    assert isinstance(error, InputError)
    assert "GB free; free some space, or lower synthesize.candidates 1000 or" in str(error)


def test_a_pool_of_one_class_is_told_by_ingest_and_leaves_the_former_pool(
    small_corpus: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    table.write(small_corpus, paths.CORPUS, 64)
    for number in range(6):
        image = Path("pool", "malignant", f"{number}.png")
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(bytes([number]))
    paths.SYNTHETIC.mkdir()
    (paths.SYNTHETIC / "former").touch()
    raw = settings().model_dump(by_alias=True) | {"n_real": 4, "ratio": 1, "generator": "released"}
    raw["synthesize"] |= {"images": 8, "released": {"folder": "pool"}}
    said = "'pool' names 0 benign and 6 malignant images but synthesize.images 8 takes 4 of each"
    assert any(said in sentence for sentence in conditions.unmet(parse(raw)))
    section = parse(raw).synthesize
    with pytest.raises(InputError, match="needs 4 benign images .* has 0; lower"):
        collect.collect(section, Path("pool"), paths.SYNTHETIC, paths.SYNTHESIZE_REPORT)
    assert [path.name for path in paths.SYNTHETIC.iterdir()] == ["former"]


@pytest.mark.parametrize(
    ("changes", "different"),
    [({}, None), ({"curve": []}, 2), ({"arms": ["real", "mixture"], "curve": [0.5]}, 2),
     ({"arms": ["real", "more_real"], "curve": []}, None), ({"curve": [2.0]}, 1)],
)  # fmt: skip
def test_too_few_sizes_for_an_exchange_rate_are_noted_by_ingest(
    small_corpus: list[dict[str, Any]],
    changes: dict[str, Any],
    different: int | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A training split of 40 of each class holds no arm more_real beside 60, nor twice as many."""
    table.write(small_corpus, paths.CORPUS, 64)
    n_real = 60 if changes == {"curve": [2.0]} else 20
    raw = settings().model_dump(by_alias=True) | {"n_real": n_real, "ratio": 1.0}
    raw["train"] |= {"arms": ["real", "mixture", "more_real"], "curve": [0.5], **changes}
    conditions.warn(parse(raw))
    notes = [line for line in capsys.readouterr().out.splitlines() if "worth" in line]
    if different is None:
        assert notes == []
    else:
        assert len(notes) == 1
        assert f"alone at 3 numbers, and there are {different}; add" in notes[0]
