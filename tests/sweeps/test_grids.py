"""Grid files: the shipped ones resolve, counts agree with hand counts, bad ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dermaflux.errors import InputError
from dermaflux.sweeps import grid, plan, probe

ROOT = Path(__file__).parents[2]


def raw(name: str = "params.yaml") -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((ROOT / name).read_text())
    return found


def written(folder: Path, text: str) -> None:
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / "own.yaml").write_text("description: d\nsource: ours\n" + text)


@pytest.mark.parametrize("name", ["figure4", "low_data", "table2", "table3"])
def test_every_shipped_grid_is_valid_with_the_paper_profile(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    definition = grid.load(name)
    runs = grid.runs(name, definition)
    paper = raw("profiles/paper.yaml")
    paper["synthesize"]["released"]["folder"] = "released"
    resolved = plan.resolve(paper, runs)
    assert all(params.train.epochs == 40 and params.train.batch == 32 for params in resolved)
    for published in definition.published:
        for condition in filter(None, (published.at, published.over)):
            matching = [run for run in runs if condition.items() <= run.overrides.items()]
            assert matching, f"{condition} is no run of {name}"


def test_a_grid_is_the_product_of_what_varies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(
        tmp_path,
        "set: {train.seeds: [0, 1]}\nruns:\n"
        "- vary: {n_real: [100, 200], ratio: [0, 0.5, 1]}\n"
        "- {name: none, set: {n_real: 0, train.arms: [mixture]}, vary: {n_synthetic: [50]}}\n",
    )
    runs = grid.runs("own", grid.load("own"))
    assert [run.name for run in runs] == [
        *(f"own-n_real-{n}-ratio-{x}" for n in (100, 200) for x in (0, 0.5, 1)),
        "own-none-n_synthetic-50",
    ]
    base = raw()
    base["train"]["arms"] = ["real", "mixture", "repeated", "augmented", "random_features"]
    base["train"]["architectures"] = ["vit"]
    resolved = plan.resolve(base, runs)
    by_run = [plan.trainings(params, None) for params in resolved]
    # Per n_real and seed: real and random features once; mixture, repeated and augmented at two
    # ratios, and augmented real images at ratio 0. The synthetic ones alone add one per seed.
    assert len(plan.distinct(by_run)) == 2 * 2 * (2 + 2 * 3 + 1) + 2
    assert sum(map(len, by_run)) == 2 * 2 * (3 + 5 + 5) + 2
    work = plan.passes(plan.distinct(by_run), 30)
    per_seed = sum(2 * n + 3 * 1.5 * n + 3 * 2 * n + n for n in (100, 200)) + 50
    assert work["vit"] == (2 * per_seed * 10, 30 * 10 * len(plan.distinct(by_run)))
    assert plan.seconds(work, {"vit": (100.0, 400.0)}) == pytest.approx(
        work["vit"][0] / 100 + work["vit"][1] / 400
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs: [{vary: {ratio: []}}]", "vary.ratio is empty"),
        ("runs: [{set: {ratio: 1}, vary: {ratio: [1]}}]", "in both set and vary"),
        ("runs: [{vari: {ratio: [1]}}]", r"runs\.0\.vari"),
        ("runs: []", "runs"),
        ("runs: [{set: {ratio: 1}}, {set: {ratio: 0}}]", "two runs .* give their blocks names"),
        ("runs: [{vary: {data: ['a b']}}]", "cannot name an experiment"),
        ("runs: [{vary: {ratio: [50]}}]", r"own-ratio-50.*synthesize\.images is 420"),
        ("runs: [{vary: {generator: [released]}}]", r"own-generator-released.*released\.folder"),
        ("runs: [{set: {ratoi: 1}}]", "'ratoi'; did you mean 'ratio'"),
        ("runs: [{set: {ratio.x: 1}}]", "'ratio' is a value"),
    ],
)
def test_a_bad_grid_is_refused_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, text)
    with pytest.raises(InputError, match=expected) as raised:
        plan.resolve(raw(), grid.runs("own", grid.load("own")))
    assert "\n" not in str(raised.value)


def test_an_absent_grid_and_a_small_corpus_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "runs: [{set: {n_real: 200}}]")
    with pytest.raises(InputError, match=r"no experiments/other\.yaml \(grids here: own\)"):
        grid.load("other")
    params = plan.resolve(raw(), grid.runs("own", grid.load("own")))[0]
    plan.check_counts("own", params, {"benign": 500, "malignant": 100})
    with pytest.raises(InputError, match="own: n_real 200 needs 100 malignant .* holds 99; lower"):
        plan.check_counts("own", params, {"benign": 500, "malignant": 99})


def test_the_probe_measures_images_per_second() -> None:
    params = plan.resolve(raw(), [grid.Run("demo", {"train.image_size": 32}, {})])[0]
    trained, scored = probe.rates(params, "resnext")
    assert 0 < trained < scored
