"""Arms on more, fewer and wrongly labelled images: `more_real`, `shuffled` and `train.curve`."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import toy_corpus as toy

from dermaflux import conditions, paths
from dermaflux.classifiers import evaluate, train
from dermaflux.classifiers.data import real_draws, training_set
from dermaflux.classifiers.data.training_set import CellImages
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.registry import candidates
from dermaflux.statistics import evaluations, seed_means
from dermaflux.validation import mixture_gate

CELL = paths.CLASSIFIERS / "vit-0"


pytestmark = pytest.mark.usefixtures("workspace")


def parameters(top: dict[str, object] | None = None, **changes: object) -> Params:
    shipped = toy.parameters(**(top or {}))
    settings = {"architectures": ["vit"], "models": {"vit": toy.TINY["vit"]}, "epochs": 1}
    raw = shipped.model_dump(by_alias=True)
    return Params.model_validate({**raw, "train": {**raw["train"], **settings, **changes}})


def images(run: Params, seed: int = 0) -> CellImages:
    return training_set.load(run, seed, mixture_gate.check, run.training("vit").arms)


def test_further_real_images_take_the_place_of_synthetic_ones() -> None:
    arms = ["real", "mixture", "more_real"]
    cell = images(parameters({"n_real": 40, "ratio": 0.5}, arms=arms))
    real, mixture, more = (cell.of(arm) for arm in arms)
    assert [len(part.labels) for part in (real, mixture, more)] == [40, 60, 60]
    assert [int(part.labels.sum()) for part in (real, mixture, more)] == [20, 30, 30]
    further = set(more.image_ids) - set(real.image_ids)
    assert len(further) == 20  # so they contain those of n_real, and are disjoint from them
    labels = table.metadata(paths.CORPUS, split="train").set_index("image_id")["label"]
    assert list(labels[more.image_ids] == "malignant") == list(more.labels == 1)
    larger = images(parameters({"n_real": 60, "ratio": 0.5}, arms=["real"])).of("real")
    assert set(more.image_ids) == set(larger.image_ids)
    pixels = np.asarray(more.pixels).reshape(60, -1)
    assert np.array_equal(pixels.max(axis=1) > 150, more.labels == 1)


def test_the_gate_sees_every_real_image_that_an_arm_trains_on() -> None:
    seen = []

    def gate(run: Params, real: list[str], synthetic: list[str], rejected: list[str]) -> None:
        mixture_gate.check(run, real, synthetic, rejected)
        seen.append(real)

    for changes in ({"n_real": 40, "ratio": 0.5}, {"real_fraction": 0.2, "ratio": 1.5}):
        curve = [] if "real_fraction" in changes else [0.5, 2]
        run = parameters(changes, arms=["real", "more_real"], curve=curve)
        arms = run.training("vit").arms
        cell = training_set.load(run, 0, gate, arms)
        trained = {name for arm in arms for name in cell.of(arm).image_ids}
        assert trained == set(seen[-1]) > set(seen[-2])


def test_more_real_without_enough_images_is_the_arm_real(capsys) -> None:
    run = parameters({"ratio": 0.9}, arms=["more_real", "real"], epochs=1)
    said = (
        "more_real needs 27 further malignant images but the training split holds 20 beyond "
        "n_real, so it adds none and is the real arm"
    )
    assert conditions.shortages(run) == [said]  # as soon as the corpus is counted
    train.run(run, "vit", 0, mixture_gate.check)
    printed = capsys.readouterr().out
    assert printed.count(said) == 1
    assert printed.count("trained before on these images") == 1
    arms = ("real", "more_real")
    config = {arm: json.loads((CELL / arm / "config.json").read_text()) for arm in arms}
    assert config["more_real"].pop("shortage") == said
    assert config["more_real"] == config["real"]
    weights = [(CELL / arm / "model.safetensors").read_bytes() for arm in config]
    assert weights[0] == weights[1]
    assert [each.arm for each in candidates.candidates(run)] == ["real"]
    evaluate.run(run, "vit", 0)
    (cell,) = evaluations.load(run)
    assert (list(cell.arms), cell.shortages) == (["real"], {"more_real": said})


@pytest.mark.parametrize(
    ("fraction", "ratio", "enough"), [(0.4, 1.0, True), (0.6, 1.0, False), (1.0, 0.0, True)]
)
def test_further_images_of_diagnoses(fraction: float, ratio: float, enough: bool) -> None:
    top: dict[str, object] = {"real_fraction": fraction, "ratio": ratio}
    cell = images(parameters(top, arms=["real", "more_real"], labels="diagnosis"))
    real, more = (Counter(cell.of(arm).labels.tolist()) for arm in ("real", "more_real"))
    if enough:
        assert cell.shortages == {}
        assert more == {number: real[number] + cell.added[number] for number in real}
    else:
        assert "beyond real_fraction" in cell.shortages["more_real"]
        assert more == real


def test_shuffled_labels_are_those_of_the_mixture_in_another_order() -> None:
    run = parameters(arms=["real", "mixture", "shuffled"])
    cell, other = images(run), images(run, seed=1)
    mixture, shuffled = cell.of("mixture"), cell.of("shuffled")
    assert shuffled.image_ids == mixture.image_ids
    assert np.array_equal(np.asarray(shuffled.pixels), np.asarray(mixture.pixels))
    assert np.array_equal(shuffled.labels[:60], mixture.labels[:60])
    synthetic = [part.labels[60:] for part in (mixture, shuffled, other.of("shuffled"))]
    assert (synthetic[0] != synthetic[1]).any()
    assert (synthetic[1] != synthetic[2]).any()
    assert [part.tolist().count(1) for part in synthetic] == [15, 15, 15]
    assert np.array_equal(images(run).of("shuffled").labels, shuffled.labels)
    assert cell.digests("shuffled")[:2] == cell.digests("mixture")[:2]
    assert cell.digests("shuffled")[2] != cell.digests("mixture")[2]


def keys(run: Params) -> dict[str, str]:
    cell = train.Cell.open(run, "vit", 0, mixture_gate.check)
    return {arm: cell.key(arm) for arm in run.training("vit").arms}


def test_keys_follow_the_images_alone() -> None:
    arms = ["real", "mixture", "more_real", "shuffled"]
    top: dict[str, object] = {"n_real": 40}
    plain = keys(parameters(top, arms=arms, curve=[0.5, 1, 1.5]))
    assert list(plain) == [*arms, "real_x0.5", "real_x1.5"]
    assert len(set(plain.values())) == 5
    assert plain["real_x1.5"] == plain["more_real"]  # ratio 0.5: the same images
    half = keys(parameters({**top, "ratio": 0.2}, arms=arms, curve=[0.5]))
    assert {arm for arm in half if half[arm] == plain[arm]} == {"real", "real_x0.5"}
    assert keys(parameters({"n_real": 60}, arms=["real"]))["real"] == plain["real_x1.5"]
    none = keys(parameters({**top, "ratio": 0}, arms=arms))
    assert set(none.values()) == {plain["real"]}


def test_a_curve_from_training_to_means_and_candidates(capsys) -> None:
    top: dict[str, object] = {"n_real": 40, "ratio": 0.4}
    arms = ["real", "mixture", "more_real", "shuffled"]
    run = parameters(top, arms=arms, curve=[0.5, 1, 2, 4])
    train.run(run, "vit", 0, mixture_gate.check)
    evaluate.run(run, "vit", 0)
    said = (
        "real_x4 needs 80 malignant images but the training split holds 50, so this size of "
        "train.curve is left out"
    )
    assert capsys.readouterr().out.count(said) == 1
    trained = [*arms, "real_x0.5", "real_x2"]
    assert sorted(path.name for path in CELL.iterdir() if path.is_dir()) == sorted(trained)
    counts = {}
    for arm in trained:
        config = json.loads((CELL / arm / "config.json").read_text())
        counts[arm] = [config[name] for name in ("n_real", "n_synthetic", "n_shown")]
        assert "shortage" not in config
    assert counts == {
        **{"real": [40, 0, 40], "mixture": [40, 16, 56], "more_real": [56, 0, 56]},
        **{"shuffled": [40, 16, 56], "real_x0.5": [20, 0, 20], "real_x2": [80, 0, 80]},
    }
    again = parameters({**top, "ratio": 0.3}, arms=arms, curve=[0.5, 1, 2, 4])
    train.run(again, "vit", 0, mixture_gate.check)
    recalled = [line for line in capsys.readouterr().out.splitlines() if "trained before" in line]
    assert [line.split(":")[0] for line in recalled] == [
        f"vit-0/{arm}" for arm in ("real", "real_x0.5", "real_x2")
    ]
    cells = evaluations.load(run)
    assert [list(cell.arms) for cell in cells] == [trained]
    assert evaluations.said(cells) == [said]
    means = seed_means.means(run, cells)
    assert [arm for _, arm in means] == trained
    assert all(len(mean["auc"].values) == 1 for mean in means.values())
    assert {each.arm for each in candidates.candidates(run)} == {"real", "mixture", "more_real"}
    path = paths.EVALUATIONS / "vit-0.json"
    content = json.loads(path.read_text())
    short = {**content["shortages"], "real_x2": "of another training split"}
    (paths.EVALUATIONS / "vit-1.json").write_text(json.dumps({**content, "shortages": short}))
    seeds = run.train.model_copy(update={"seeds": [0, 1]})
    with pytest.raises(InputError, match="so that they are of one training split"):
        evaluations.load(run.model_copy(update={"train": seeds}))
    path.write_text(json.dumps({**content, "shortages": "real_x4"}))
    with pytest.raises(InputError, match="its shortages are no object"):
        evaluations.load(run)
    (CELL / "real_x2").rename("elsewhere")
    with pytest.raises(InputError, match="has no arm 'real_x2'"):
        evaluate.run(run, "vit", 0)


def test_a_cell_tells_later_stages_what_was_short(tmp_path) -> None:
    real_draws.write({}, tmp_path)
    assert real_draws.read(tmp_path) == {}
    assert not list(tmp_path.glob("*.json"))
    (tmp_path / real_draws.SHORTAGES).write_text('{"more_real": 3}')
    with pytest.raises(InputError, match="something else than sentences"):
        real_draws.read(tmp_path)
