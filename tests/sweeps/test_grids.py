"""Grid files: the shipped ones resolve, counts agree with hand counts, bad ones are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from dermaflux.classifiers.model import network
from dermaflux.errors import InputError
from dermaflux.sweeps import grid, plan, probe

ROOT = Path(__file__).parents[2]


def raw(name: str = "params.yaml") -> dict[str, Any]:
    parameters: dict[str, Any] = YAML(typ="safe").load((ROOT / name).read_text())
    return parameters


def write_grid(folder: Path, text: str) -> None:
    (folder / "grids").mkdir(exist_ok=True)
    (folder / "grids" / "small.yaml").write_text("description: d\nsource: ours\n" + text)


@pytest.mark.parametrize("name", ["figure4", "table2", "table3"])
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
    write_grid(
        tmp_path,
        "set: {train.seeds: [0, 1]}\nruns:\n"
        "- vary: {n_real: [100, 200], ratio: [0, 0.5, 1]}\n"
        "- {name: none, set: {n_real: 0, train.arms: [mixture]}, vary: {n_synthetic: [50]}}\n",
    )
    runs = grid.runs("small", grid.load("small"))
    assert [run.name for run in runs] == [
        *(f"small-n_real-{n}-ratio-{x}" for n in (100, 200) for x in (0, 0.5, 1)),
        "small-none-n_synthetic-50",
    ]
    base = raw()
    base["train"]["arms"] = ["real", "mixture", "repeated", "augmented", "random_features"]
    base["train"] |= {"architectures": ["vit"], "curve": []}
    resolved = plan.resolve(base, runs)
    by_run = [plan.trainings(params, None) for params in resolved]
    # Per n_real and seed: real and random features once; mixture, repeated and augmented at two
    # ratios, and augmented real images at ratio 0. The synthetic ones alone add one per seed.
    assert len(plan.distinct(by_run)) == 2 * 2 * (2 + 2 * 3 + 1) + 2
    assert sum(map(len, by_run)) == 2 * 2 * (3 + 5 + 5) + 2
    work = plan.passes(plan.distinct(by_run), 30)
    per_seed = sum(2 * n + 3 * 1.5 * n + 3 * 2 * n + n for n in (100, 200)) + 50
    assert work["vit"] == (2 * per_seed * 12, 30 * 12 * len(plan.distinct(by_run)))
    assert plan.seconds(work, {"vit": (100.0, 400.0)}) == pytest.approx(
        work["vit"][0] / 100 + work["vit"][1] / 400
    )

    # Ceiling and floor hang on the ratio; a size of the curve is the arm real of another n_real,
    # here 50 to 1,600; and what the split is too small for is not trained.
    base["train"] |= {"arms": ["real", "more_real", "shuffled"], "curve": [0.5, 1, 2, 8]}
    sizes = plan.resolve(base, [run for run in runs if run.overrides["n_real"]])
    for available, per_seed in (
        (None, {"real": 6, "more_real": 4, "shuffled": 4}),
        ({"benign": 900, "malignant": 160}, {"real": 3, "more_real": 3, "shuffled": 4}),
    ):
        by_run = [plan.trainings(params, None, available) for params in sizes]
        trained = plan.distinct(by_run)
        assert Counter(each.arm for each in trained if each.seed == 0) == per_seed
    images = {each.images for each in trained if each.arm == "real"}
    assert images == {50, 100, 200}

    base["train"] |= {"arms": ["real", "mixture"], "curve": []}
    # A student hangs on the ratio through its teacher, whatever its own arm shows; at ratio 0 its
    # mixture is its real arm. Without a teacher it does not hang on how the teacher counts.
    base["distill"] |= {"students": ["resnext"], "epochs": 3}
    few = plan.resolve(base, runs[:2]) + plan.resolve(
        base | {"distill": {**base["distill"], "alpha": 0.1}}, runs[1:2]
    )
    taught = [
        t
        for t in plan.distinct([plan.trainings(params, None) for params in few])
        if t.architecture == "resnext"
    ]
    counts = Counter(training.arm for training in taught if training.seed == 0)
    assert counts == {"real": 3, "mixture": 2, "no_teacher": 2}
    assert {training.epochs for training in taught} == {3}

    # What starts from pre-training, and what such a teacher taught, hangs on what that one saw.
    base["train"] |= {
        "recipe": "mae", "architectures": ["vit_mae"], "arms": ["real", "scratch"],
    }  # fmt: skip
    base |= {"promote": {**base["promote"], "architecture": "vit_mae"}}
    base["distill"] |= {"teacher": "vit_mae", "arms": ["real", "no_teacher"]}
    pretrained = [
        plan.trainings(params, None)
        for images in ("real", "both")
        for params in plan.resolve(
            base | {"pretrain": {**base["pretrain"], "images": images}}, runs[:1]
        )
    ]
    assert Counter((each.architecture, each.arm) for each in plan.distinct(pretrained)) == {
        ("vit_mae", "real"): 4, ("vit_mae", "scratch"): 2,
        ("resnext", "real"): 4, ("resnext", "no_teacher"): 2,
    }  # fmt: skip  # of two seeds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs: [{vary: {ratio: []}}]", "vary.ratio is empty"),
        ("runs: [{set: {ratio: 1}, vary: {ratio: [1]}}]", "in both set and vary"),
        ("runs: [{vari: {ratio: [1]}}]", r"runs\.0\.vari"),
        ("runs: []", "runs"),
        (
            "runs: [{set: {ratio: 1}}, {set: {ratio: 0}}]",
            "two runs .* give their blocks a name",
        ),
        ("runs: [{vary: {data: ['a b']}}]", "cannot name an experiment"),
        ("runs: [{vary: {ratio: [50]}}]", r"small-ratio-50.*synthesize\.images is 420"),
        ("runs: [{vary: {generator: [released]}}]", r"small-generator-released.*released\.folder"),
        (
            "runs: [{name: b, vary: {ratio: [0, 1]}}]\ntable: [{title: A, run: b, cell: vit/real}]",
            "the block 'b', which varies ratio, .* give each value a block of its own",
        ),
        ("pools: {a: {set: {generator: latent_ddpm}}}\nruns: [{}]", "this one has both"),
        ("pools: {a: {folder: x}, b: {folder: ./x}}", "the pools 'a' and 'b' are the same images"),
        ("pools: {a: {folder: x}, a: {folder: y}}", "duplicate key"),
        ("pools: {a: {licence: MIT}}", "neither a folder nor a generator; write"),
        ("pools: {a: {folder: x, set: {generator: flux_lora}}}", "has a folder and sets generator"),
        ("pools: {a: {set: {generator: x, train.epochs: 3}}}", r"'train\.epochs', but pools are"),
        ("pools: {a: {folder: x, url: 'javascript:1'}}", r"pools\.a\.url"),
        ("runs: [{set: {ratoi: 1}}]", "'ratoi'; did you mean 'ratio'"),
        ("runs: [{set: {ratio.x: 1}}]", "'ratio' is a value"),
    ],
)
def test_a_bad_grid_is_refused_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_grid(tmp_path, text)
    with pytest.raises(InputError, match=expected) as raised:
        plan.resolve(raw(), grid.runs("small", grid.load("small")))
    assert "\n" not in str(raised.value)


def test_an_absent_grid_and_a_small_corpus_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_grid(tmp_path, "runs: [{set: {n_real: 200, ratio: 1}}]")
    with pytest.raises(InputError, match=r"no grids/other\.yaml \(grids here: small\)"):
        grid.load("other")
    params = plan.resolve(raw(), grid.runs("small", grid.load("small")))[0]
    plan.check_counts("small", params, {"benign": 500, "malignant": 100})
    with pytest.raises(InputError, match="small: n_real 200 needs 100 malignant .* 99"):
        plan.check_counts("small", params, {"benign": 500, "malignant": 99})


def test_a_grid_in_the_old_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text("runs: [{}]")
    with pytest.raises(InputError, match=r"git mv experiments/mine\.yaml grids/mine\.yaml"):
        grid.load("mine")


def test_the_rate_is_that_of_the_steps_and_not_of_the_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that only steps move: 0.5 s more for the first call, 0.25 s per image otherwise."""
    clock, batches = [100.0], []

    def step(images: torch.Tensor) -> None:
        clock[0] += 0.25 * len(images) + (0.0 if batches else 0.5)
        batches.append(len(images))

    monkeypatch.setattr(probe.time, "perf_counter", lambda: clock[0])
    rate = probe.images_per_second(step, torch.zeros(32, 3, 2, 2), 6.0)
    assert rate == pytest.approx(4.0)
    # 6 s are 24 images: 3 steps of 8 fit, after two calls of 2 images and a warm-up of 8.
    assert batches == [2, 2, 8, 8, 8, 8]
    batches.clear()
    assert probe.images_per_second(step, torch.zeros(3, 3, 2, 2), 6.0) == pytest.approx(4.0)
    assert batches == [2, 2, 3, *[3] * 8]


def test_the_probe_trains_and_scores_at_the_size_and_batch_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {"train.image_size": 32, "train.batch": 5}
    params = plan.resolve(raw(), [grid.Run("demo", changes, {})])[0]
    built: list[torch.nn.Module] = []
    build = network.build

    def recorded(config: Any) -> torch.nn.Module:
        built.append(build(config))
        return built[-1]

    def measured(step: Callable[[torch.Tensor], None], images: torch.Tensor, _: float) -> float:
        assert images.shape == (5, 3, 32, 32)
        before = [weights.clone() for weights in built[0].parameters()]
        step(images)
        after = list(built[0].parameters())
        return sum(not torch.equal(*pair) for pair in zip(before, after, strict=True)) / len(after)

    monkeypatch.setattr(network, "build", recorded)
    monkeypatch.setattr(probe, "images_per_second", measured)
    trained, scored = probe.rates(params, "resnext")
    assert trained > 0
    assert scored == 0
    assert not built[0].training
