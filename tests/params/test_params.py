"""Parameters: the shipped files load, and bad ones get one sentence with value, limit and fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dermaflux.errors import InputError
from dermaflux.params import load

ROOT = Path(__file__).parents[2]


def shipped() -> dict[str, Any]:
    raw: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    return raw


def with_value(path: str, value: Any) -> dict[str, Any]:
    raw = shipped()
    *parents, last = path.split(".")
    section = raw
    for name in parents:
        section = section[name]
    section[last] = value
    return raw


def test_demo_parameters_load() -> None:
    assert load.load(ROOT / "params.yaml").backbone.small


def test_paper_profile_holds_the_published_protocol() -> None:
    paper = load.load(ROOT / "profiles" / "paper.yaml")
    assert (paper.n_real, paper.synthetic_wanted()) == (2500, 4375)
    lora = paper.finetune.settings("flux_lora").model_dump()
    assert (lora["rank"], lora["alpha"], lora["epochs"]) == (64, 64, 5)
    assert paper.synthesize.settings("flux_lora").model_dump()["steps"] == 20
    assert (paper.train.epochs, paper.train.batch, len(paper.train.seeds)) == (40, 32, 5)
    assert paper.train.models["vit"].learning_rate == 2e-5
    assert paper.train.models["resnext"].learning_rate == 1e-4


def test_profile_and_demo_have_the_same_sections() -> None:
    paper = YAML(typ="safe").load((ROOT / "profiles" / "paper.yaml").read_text())
    assert list(paper) == list(shipped())


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("ratoi", 1.0, "unknown parameter 'ratoi'; did you mean 'ratio'"),
        ("train.epoch", 3, "unknown parameter 'train.epoch'; did you mean 'epochs'"),
        ("ratio", -1, "ratio is -1 but should be greater than or equal to 0"),
        ("ratio", float("nan"), "ratio is nan"),
        ("ratio", 50.0, "synthetic images but synthesize.images is"),
        ("synthesize.proportions", "even", "'even' gives no proportions; write balanced, natural"),
        ("synthesize.proportions", {"benign": 0}, "the share of 'benign' is 0 but must be above 0"),
        (
            "synthesize.proportions",
            {"benign": 0.5, "malignant": 0.6},
            "add up to 1.1; write shares",
        ),
        (
            "synthesize.proportions",
            {"bengn": 1.0},
            "names 'bengn', which is not a class of conditions 'malignancy'; write benign",
        ),
        ("synthesize.proportions", {1: 1.0}, "the class 1 is not text; put it in quotes"),
        ("synthesize.select", "certain", "synthesize.select is 'certain' but should be 'none' or"),
        ("n_real", 7, "n_real is 7 but should be a multiple of 2"),
        ("seed", "one", "seed is 'one' but should be a valid integer"),
        ("finetune.scales", [64], "finetune.scales.0 is 64 but should be 128, 256 or 512"),
        ("validate.malignant_fraction.train", [0.1, 2], "train.1 is 2 but should be less than"),
        ("train.architectures", ["vit", "dense"], "'dense' has no entry in train.models"),
        ("train.seeds", [1, 1], "names one entry twice"),
        (
            "accelerate",
            "x",
            "parameter 'accelerate' is called 'runtime.accelerate' now; move it there",
        ),
        (
            "promote.familiar_fraction",
            0.9,
            "'promote.familiar_fraction' is called 'promote.in_distribution_quantile' now",
        ),
        ("finetune.rank", 8, "'finetune.rank' is called 'finetune.flux_lora.rank' now"),
        ("finetune.text_policy", "trim", "called 'finetune.flux_lora.prompt_padding' now"),
        ("finetune.log_steps", 8, "'finetune.log_steps' is called 'runtime.finetune.log_steps'"),
        ("synthesize.bank", "label", "is called 'synthesize.prompt_source' now"),
        ("generator", "lora", "generator: 'lora' is called 'flux_lora' now; write that"),
        ("generator", "folder", "generator: 'folder' is called 'released' now; write that"),
        ("generator", "flux_lor", "'flux_lor' is not a generator; did you mean 'flux_lora'"),
        (
            "generator",
            "gan",
            "'gan' is not a generator; choose one of flux_lora, released, la",
        ),
        ("generator", "released", "generator 'released' needs the folder with the images; set"),
        ("finetune.flux_lora", None, "'finetune.flux_lora' is missing and generator is"),
        ("finetune.flux_lora.rang", 8, "'finetune.flux_lora.rang'; did you mean 'rank'"),
        ("finetune.flux_lora.rank", "x", "finetune.flux_lora.rank is 'x' but should be a valid"),
        ("finetune.flux_lor", {}, "'finetune.flux_lor'; did you mean 'flux_lora'"),
        (
            "promote.architecture",
            "dense",
            "promote.architecture 'dense' has no entry in train.models",
        ),
        (
            "promote.architecture",
            "maxvit",
            "'maxvit' is neither in train.architectures nor in distill.students; name one of",
        ),
        ("pretrain.architecture", "dense", "pretrain.architecture 'dense' has no entry in train"),
        ("train.recipe", "distill", "one of supervised, mae; a student is named in distill."),
        ("train.recipe", "mae", "none of ['vit', 'resnext'] starts from it; add a model with"),
        ("train.warmup_epochs", 13, "warmup_epochs 13 is above epochs 12, so training would"),
        ("pretrain.warmup_epochs", 61, "warmup_epochs 61 is above epochs 60, so training would"),
        ("distill.alpha", 0, "distill.alpha: 0 gives the teacher no weight, so mixture would"),
        ("distill.students", ["dense"], "the student 'dense' of distill.students has no entry in"),
        ("distill.students", ["vit"], "'vit' is in train.architectures and in distill.students"),
        ("distill.alpha", 1.5, "distill.alpha is 1.5 but should be less than or equal to 1"),
        ("distill.alpha", -0.1, "distill.alpha is -0.1 but should be greater than or equal to 0"),
        ("distill.temperature", 0, "distill.temperature is 0 but should be greater than or equal"),
        ("train.arms", ["fake"], "there is no arm 'fake'; name one of real, mixture, repeated,"),
        ("train.arms", ["real_x2"], "there is no arm 'real_x2'; name one of real, mixture"),
        ("train.curve", [0], "train.curve.0 is 0 but should be greater than 0"),
        ("train.curve", [1.0000001], "1.0000001 has more than six digits; round it to 1"),
        ("train.curve", [2, 2.0], "names one entry twice"),
        (
            "train.curve",
            [0.001],
            "real_x0.001 with n_real 100 is less than one image of each class",
        ),
        (
            "train.arms",
            ["no_teacher"],
            "'no_teacher' is of students alone; name it in distill.arms",
        ),
    ],
)
def test_bad_value_is_one_sentence(path: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load.parse(with_value(path, value))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("distill.teacher", "maxvit", "distill.teacher 'maxvit' is not one of train.architectures"),
        ("train.arms", ["repeated"], "train no teacher for distill.students; add mixture or real"),
        ("n_real", 0, "leaves the arm 'real' without images; set train.arms and distill.arms to"),
        ("distill.epochs", 1, "distill.epochs 1 is below train.warmup_epochs 2, so training"),
    ],
)
def test_what_students_need_is_one_sentence(path: str, value: Any, expected: str) -> None:
    raw = with_value(path, value)
    raw["distill"]["students"] = ["densenet"]
    raw["train"]["warmup_epochs"] = 2
    with pytest.raises(InputError, match=re.escape(expected)):
        load.parse(raw)


def test_sizes_of_the_curve_are_arms_of_all_but_students() -> None:
    raw = with_value("train.curve", [2, 1, 0.5])
    raw["train"]["arms"] = ["mixture"]
    raw["distill"] |= {"students": ["densenet"], "arms": ["no_teacher"]}
    params = load.parse(raw)
    assert params.training("vit").arms == ["mixture", "real_x2", "real", "real_x0.5"]
    assert params.training("densenet").arms == ["no_teacher"]
    assert params.arms() == ["mixture", "real_x2", "real", "real_x0.5", "no_teacher"]
    assert params.curve_sizes() == {"real_x2": 100, "real": 50, "real_x0.5": 25}
    odd = params.model_copy(update={"n_real": 30})
    assert odd.curve_sizes() == {"real_x2": 30, "real": 15, "real_x0.5": 8}
    for changes in ({"real_fraction": 0.5}, {"n_real": 0}):
        assert params.model_copy(update=changes).arms() == ["mixture", "no_teacher"]


def test_missing_file_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no parameter file"):
        load.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1,\n")
    with pytest.raises(InputError, match="not valid YAML"):
        load.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(InputError, match="holds no parameters"):
        load.load(tmp_path / "params.yaml")


def test_ratio_zero_asks_for_no_synthetic_images() -> None:
    assert load.parse(with_value("ratio", 0)).synthetic_wanted() == 0


def test_synthetic_only_needs_its_own_number() -> None:
    raw = shipped() | {"n_real": 0, "n_synthetic": 100}
    with pytest.raises(InputError, match="arm 'real' without images"):
        load.parse(raw)
    raw["train"]["arms"] = ["mixture"]
    assert load.parse(raw).synthetic_wanted() == 100


@pytest.mark.parametrize(
    "path",
    [
        "data",
        "caption.imported",
        "caption.model",
        "backbone.repository",
        "finetune.flux_lora.imported",
        "synthesize.released.folder",
        "audit.features",
        "train.models.vit.weights",
        "zero_shot.models.make",
    ],
)
@pytest.mark.parametrize("value", ["~/lesions", "$HOME/lesions", "${HOME}/lesions"])
def test_a_path_that_only_a_shell_expands_is_told_in_full(
    monkeypatch: pytest.MonkeyPatch, path: str, value: str
) -> None:
    monkeypatch.setenv("HOME", "/home/doe")
    with pytest.raises(InputError, match=rf"{path}: .*; write '/home/doe/lesions'$"):
        load.parse(with_value(path, value))


@pytest.mark.parametrize("value", ["~nobody-of-that-name/x", "$UNSET_HERE/x", "%USERPROFILE%/x"])
def test_an_unknown_shell_word_is_refused_all_the_same(value: str) -> None:
    with pytest.raises(InputError, match="data: .*; write its absolute path"):
        load.parse(with_value("data", value))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"backbone.repository": "black-forest-labs/FLUX.1-dev"},
            "has no backbone.revision; correct the path, or pin",
        ),
        (
            {"synthesize.prompt_source": "held_out", "caption.held_out_fraction": 0.0},
            "caption.held_out_fraction is 0; raise it",
        ),
        (
            {"finetune.splits": ["train", "validation"]},
            "splits names validation but validation_images 16 would .* set it to 0, or splits",
        ),
        (
            {"finetune.splits": ["train", "validation"], "finetune.validation_images": 0},
            "ingest.policy is 'clean'; set splits to .train., or policy to as_published",
        ),
        (
            {"finetune.splits": ["validation"], "finetune.validation_images": 0},
            "split train has to be one of them; add it",
        ),
        (
            {"synthesize.prompt_source": "file", "generator": "latent_ddpm"},
            "'file' names prompts but the generator 'latent_ddpm' reads none; set it to captions",
        ),
        (
            {"synthesize.prompt_source": "label", "train.labels": "diagnosis", "real_fraction": 1},
            "'label' gives them none",
        ),
        (
            {"promote.architecture": "dense", "train.labels": "diagnosis", "real_fraction": 1},
            "promote.architecture 'dense' has no entry in train.models",
        ),
        (
            {
                "generator": "released",
                "synthesize.released.folder": "x",
                "train.labels": "diagnosis",
                "real_fraction": 1,
                "n_synthetic": 100,
            },
            "conditions 'malignancy' gives them none; set it to diagnosis, or leave mixture out",
        ),
        (
            {"synthesize.conditions": "none"},
            "'flux_lora' samples no image without a class; set conditions to malignancy",
        ),
        (
            {
                "generator": "released",
                "synthesize.released.folder": "x",
                "synthesize.conditions": "none",
            },
            "'released' samples no image without a class; set conditions to malignancy",
        ),
        (
            {"synthesize.select": "uncertain", "synthesize.candidates": 1},
            "select is 'uncertain' but candidates 1 leaves nothing to choose from; raise",
        ),
        (
            {
                "synthesize.select": "uncertain",
                "generator": "released",
                "synthesize.released.folder": "x",
            },
            "generator 'released' samples no candidates; choose another generator, or set",
        ),
        (
            {
                "synthesize.select": "uncertain",
                "n_real": 0,
                "n_synthetic": 100,
                "train.arms": ["mixture"],
            },
            "n_real 0 leaves its classifier without images; raise n_real, or set",
        ),
        (
            {
                "synthesize.select": "uncertain",
                "train.recipe": "mae",
                "train.architectures": ["vit_mae", "vit"],
            },
            "'vit_mae', the first of train.architectures, starts from pre-training.*first, or set",
        ),
    ],
)
def test_what_parameters_alone_forbid_is_said_when_they_are_read(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    raw = shipped()
    for path, value in changes.items():
        *parents, last = path.split(".")
        section = raw
        for name in parents:
            section = section[name]
        section[last] = value
    file = tmp_path / "params.yaml"
    YAML().dump(raw, file)
    with pytest.raises(InputError, match=expected):
        load.load(file)


def test_an_unconditional_pool_trains_no_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    from dermaflux.generators.flux_lora import settings

    monkeypatch.setattr(settings.Synthesize, "unconditional", True)
    raw = with_value("synthesize.conditions", "none")
    with pytest.raises(InputError, match="no class but the arm 'mixture' trains.*leave it out"):
        load.parse(raw)
    for changes in ({"train": {**raw["train"], "arms": ["real", "repeated"]}}, {"ratio": 0}):
        assert load.parse({**raw, **changes}).synthesize.conditions == "none"
    with pytest.raises(InputError, match="no class is asked for; set it to balanced"):
        load.parse({**raw, "synthesize": {**raw["synthesize"], "proportions": "natural"}})
