"""Ranks, rows and submissions of a grid with pools, against other routes to the same numbers."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from test_contrasts import parameters

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.params import load
from dermaflux.statistics import bootstrap, effects
from dermaflux.statistics.exchange_rate import exchange_rate
from dermaflux.statistics.seed_means import SeedMean
from dermaflux.sweeps import plan, queue, results
from dermaflux.sweeps.contrasts import Resampled
from dermaflux.sweeps.grid import Grid, Run, runs
from dermaflux.sweeps.leaderboard import board, images, page, ranks, schema, submissions
from dermaflux.sweeps.leaderboard.images import Images
from dermaflux.sweeps.leaderboard.rows import Measured
from dermaflux.sweeps.outcomes import Experiment
from dermaflux.tracking import machine
from dermaflux.tracking import runs as tracking

ROOT = Path(__file__).parents[2]
SIZES = {"real_x0.5": 50, "real": 100, "real_x2": 200, "real_x4": 400}
STRENGTH = {"real_x0.5": 0.5, "real": 0.8, "real_x2": 1.05, "real_x4": 1.25}
POOLS = {"good": 1.15, "alike": 1.13, "bad": 0.2}
LABELS = np.arange(300) % 2
GROUPS = np.arange(300)
RESAMPLES = 25
GRID = Grid.model_validate(
    {
        "description": "d",
        "source": "s",
        "layout": "generators",
        "pools": {
            "good": {"set": {"generator": "latent_ddpm"}, "url": "https://example.org/good"},
            "alike": {"folder": "alike", "licence": "CC <b>BY</b>"},
            "bad": {"folder": "bad"},
            "away": {"folder": "away", "licence": "MIT"},
        },
    }
)


def scores(strength: float, name: str) -> np.ndarray[Any, Any]:
    """(3, 300) probabilities; the arms of a seed share most of their noise."""
    found = []
    for seed in range(3):
        shared = np.random.default_rng(seed).normal(size=300)
        own = np.random.default_rng([seed, *name.encode()]).normal(size=300)
        found.append(1 / (1 + np.exp(-(strength * LABELS + 0.95 * shared + 0.3 * own))))
    return np.array(found)


def experiment(pool: str, **changes: Any) -> Experiment:
    params = parameters(ratio=1.0, **changes)
    train = params.train.model_copy(update={"architectures": ["vit"], "curve": [0.5, 2, 4]})
    arms = {("vit", arm): scores(STRENGTH[arm], arm) for arm in SIZES}
    arms["vit", "mixture"] = scores(POOLS[pool], pool)
    metrics = {
        key: [{"auc": roc_auc_score(LABELS, row), "validation_auc": 0.5} for row in rows]
        for key, rows in arms.items()
    }
    return Experiment(
        Run(f"g-{pool}", {}, {}, pool),
        params.model_copy(update={"train": train}),
        metrics,
        arms,
        [f"s/{number:03d}" for number in range(300)],
        LABELS.astype(bool),
        pool=f"hash of {pool}",
    )


def measured(pool: str, **changes: Any) -> Measured:
    audit = {"images": 420, "memorised_count": 3, "kid": 0.05, "kid_low": 0.04, "kid_high": 0.06}
    speed = (12.5, "a GPU") if pool == "good" else (None, "")
    return Measured(experiment(pool, **changes), Images(audit, "CC0", *speed))


def build(
    pools: list[str], submitted: list[schema.Entry] | None = None, **missing: str
) -> schema.Leaderboard:
    return board.build(
        "g", GRID, [measured(pool) for pool in pools], missing,
        Resampled(LABELS, GROUPS, RESAMPLES), "0" * 40, submitted or [],
    )  # fmt: skip


def test_ranks_are_those_of_every_order_that_the_intervals_allow() -> None:
    """Against the orders of points on a grid inside the intervals."""
    intervals = [(3.0, 5.0), (4.0, 7.0), (0.0, 1.0), (6.0, None), (None, 0.5)]
    assert ranks.ranges(intervals) == [(2, 3), (1, 3), (4, 5), (1, 2), (4, 5)]
    choices = [
        np.linspace(-2 if low is None else low, 9 if high is None else high, 7) + 0.01 * number
        for number, (low, high) in enumerate(intervals)
    ]
    possible: list[set[int]] = [set() for _ in intervals]
    for values in itertools.product(*choices):
        for number, value in enumerate(values):
            possible[number].add(1 + sum(other > value for other in values))
    assert [(min(each), max(each)) for each in possible] == ranks.ranges(intervals)
    assert [ranks.text(2, 3), ranks.text(1, 1)] == ["2 to 3", "1"]
    # Three rows of a page for six, and one of a page for two: 3 x 0.05 / 6 + 0.05 / 2 may fail.
    assert ranks.joint_confidence(0.95, [6, 6, 6, 2]) == pytest.approx(0.95)
    assert ranks.joint_confidence(0.95, [2, 2, 2]) == pytest.approx(0.925)


def test_a_row_is_its_exchange_rate_gain_and_corrected_p() -> None:
    made = build(list(POOLS), away="pools/away is not here")
    weights = bootstrap.resamples(LABELS, GROUPS, RESAMPLES, seed=0)

    def mean(rows: np.ndarray[Any, Any]) -> SeedMean:
        auc = [roc_auc_score(LABELS, row) for row in rows]
        drawn = [
            [roc_auc_score(np.repeat(LABELS, once), np.repeat(row, once)) for once in weights]
            for row in rows
        ]
        return SeedMean(np.array(auc), np.array(drawn))

    curve = {size: mean(scores(STRENGTH[arm], arm)) for arm, size in SIZES.items()}
    raw = {}
    for name, strength in POOLS.items():
        (row,) = next(entry.results for entry in made.entries if entry.pool == name)
        mixture = mean(scores(strength, name))
        each = exchange_rate(curve, mixture, 100, 100, 0.95, len(POOLS)).each
        assert row.rate is not None
        found = (row.rate.value, row.rate.low, row.rate.high)
        assert found == pytest.approx((each.value, each.low, each.high))
        over_images = mixture.resampled.mean(axis=0) - curve[100].resampled.mean(axis=0)
        differences = mixture.values - curve[100].values
        gain = effects.effect(differences, over_images, 0.95, len(POOLS))
        shown = (row.gain.value, row.gain.low, row.gain.high)
        assert shown == pytest.approx((gain.value, gain.low, gain.high))
        raw[name] = (gain.p, row.gain.p, row.rank)
        kid = next(entry.kid for entry in made.entries if entry.pool == name)
        assert kid is not None
        assert (kid.value, kid.low, kid.high) == (0.05, 0.04, 0.06)  # those of `measured`
    # Holm: of three, the smallest times 3, the next times 2, and none below the one before.
    (p1, c1), (p2, c2), (p3, c3) = sorted((p, corrected) for p, corrected, _ in raw.values())
    expected = [3 * p1, max(3 * p1, 2 * p2), max(3 * p1, 2 * p2, p3)]
    assert [c1, c2, c3] == pytest.approx(np.minimum(expected, 1), rel=1e-6, abs=0)
    assert raw["good"][2] == raw["alike"][2] == schema.Rank(best=1, worst=2)
    assert raw["bad"][2] == schema.Rank(best=3, worst=3)
    assert [entry.pool for entry in made.entries][2:] == ["bad", "away"]
    assert [size.auc for size in made.sizes] == pytest.approx(
        [each.values.mean() for each in curve.values()]
    )


def test_pools_of_other_protocols_and_equal_images_are_not_ranked() -> None:
    def together(other: Measured) -> schema.Leaderboard:
        resampled = Resampled(LABELS, GROUPS, 10)
        return board.build("g", GRID, [measured("good"), other], {}, resampled, "0" * 40)

    with pytest.raises(
        InputError, match="g-bad and g-good are of different .*n_real is 60 and not"
    ):
        together(measured("bad", n_real=60))
    twin = measured("bad")
    same = dataclasses.replace(twin.experiment, pool="hash of good")
    made = together(dataclasses.replace(twin, experiment=same))
    assert [(entry.pool, entry.state) for entry in made.entries] == [
        ("good", "measured"),
        ("bad", "not run"),
    ]
    assert "those of good" in made.entries[1].reason


def leaves(part: Any, root: Any) -> Any:
    """(name, schema) of every field, through references and lists."""
    if "$ref" in part:
        part = root["$defs"][part["$ref"].rpartition("/")[2]]
    yield from part.get("properties", {}).items()
    for below in part.get("properties", {}).values():
        for inner in (below, below.get("items", {}), below.get("additionalProperties", {})):
            if isinstance(inner, dict):
                options = inner.get("anyOf", [inner])
                yield from (leaf for option in options for leaf in leaves(option, root))


def test_the_file_is_that_of_its_documented_schema() -> None:
    documented = json.loads((ROOT / "docs" / "leaderboard.schema.json").read_text())
    assert documented == schema.Leaderboard.model_json_schema(), (
        "run `python docs/write_leaderboard_schema.py`"
    )
    content = json.loads(build(list(POOLS), away="absent").model_dump_json(by_alias=True))
    jsonschema.Draft202012Validator(documented).validate(content)
    assert schema.Leaderboard.model_validate_json(json.dumps(content)) == build(
        list(POOLS), away="absent"
    )
    text = (ROOT / "docs" / "leaderboard.md").read_text()
    for name, field in leaves(documented, documented):
        assert field.get("description"), name
        assert f"`{name}`" in text, f"docs/leaderboard.md does not explain {name}"
        structure = {"entries", "results", "sizes", "protocol", "test", "schema"}
        assert name in structure or field.get("unit"), name
    content["entries"][0]["memorised"] = -1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(documented).validate(content)


@pytest.fixture
def theirs(tmp_path: Path) -> dict[str, Any]:
    """A page that others made of one pool."""
    content: dict[str, Any] = json.loads(build(["alike"]).model_dump_json(by_alias=True))
    return content


def submit(content: Any, folder: Path, name: str = "theirs.json") -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)
    return folder / name


def test_a_submission_takes_its_place_and_says_where_it_was_run(
    theirs: dict[str, Any], tmp_path: Path
) -> None:
    ours = build(["good", "bad"])
    (tmp_path / "sent").mkdir()
    submit(theirs, tmp_path / "sent")
    submit("{", tmp_path / "sent", "broken.json")
    paths = submissions.files([tmp_path / "sent"])
    accepted, refused = submissions.accept(paths, ours)
    assert [sentence.count("broken.json") for sentence in refused] == [1]
    made = build(["good", "bad"], accepted)
    rows = {entry.pool: entry for entry in made.entries}
    assert [entry.pool for entry in made.entries] == ["alike", "good", "bad"]
    assert (rows["alike"].state, rows["alike"].reason) == ("submitted", "theirs.json")
    assert rows["alike"].results[0].rate == build(["alike"]).entries[0].results[0].rate
    assert {rows[name].comparisons for name in ("good", "bad")} == {3}
    assert made.joint_confidence == pytest.approx(1 - 0.05 * (2 / 3 + 1))
    assert any("alike" in line and "submitted, not run here" in line for line in page.lines(made))
    # A row that others were sent is not theirs to submit.
    theirs["entries"][0]["state"] = "submitted"
    with pytest.raises(InputError, match="no row that was measured"):
        submissions.entries(submit(theirs, tmp_path), ours)


def other_protocol(content: dict[str, Any]) -> None:
    changed = {**content["protocol"]["parameters"], "train.epochs": 99}
    content["protocol"] = schema.Protocol.of(changed).model_dump()


BAD = {
    "another protocol .train.epochs is 99 and not 12": other_protocol,
    "the hash is not that of the parameters": lambda c: c["protocol"]["parameters"].update(seed=9),
    "another test split .300 images": lambda c: c["test"].update(hash="0" * 64),
    "outside -0.5 to 3": lambda c: c["entries"][0]["results"][0]["rate"].update(
        value=7.0, high=8.0
    ),
    "lies outside its own interval": lambda c: c["entries"][0]["kid"].update(low=0.9),
    "500 memorised images of 420": lambda c: c["entries"][0].update(memorised=500),
    "a pool called 'good' is on the page": lambda c: c["entries"][0].update(pool="good"),
    "are those of 'good', by their hash": lambda c: c["entries"][0].update(
        pool_hash="hash of good"
    ),
    "results of deit and the page is of vit": lambda c: (
        c["entries"][0]["results"][0].update(architecture="deit"),
        [size.update(architecture="deit") for size in c["sizes"]],
    ),
    "schema 'dermaflux-leaderboard/9' and this": lambda c: c.update(
        schema="dermaflux-leaderboard/9"
    ),
    "at confidence 0.9, and its protocol": lambda c: c.update(confidence=0.9),
    "entries.0.url": lambda c: c["entries"][0].update(url="javascript:alert(1)"),
    "entries.0.pool": lambda c: c["entries"][0].update(pool="a\nb"),
    "Extra inputs|extra": lambda c: c.update(score=1),
}


@pytest.mark.parametrize("expected", BAD)
def test_a_bad_submission_is_refused_with_one_sentence(
    theirs: dict[str, Any], tmp_path: Path, expected: str
) -> None:
    BAD[expected](theirs)
    ours = build(["good"])
    with pytest.raises(InputError, match=expected) as told:
        submissions.entries(submit(theirs, tmp_path), ours)
    assert "theirs.json" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is no submission .Invalid JSON: EOF"),
        ("[]", "is no submission .Input should be an object"),
        ("[" * 100_000, "is no submission .Invalid JSON: recursion limit"),
        ('{"schema": NaN}', "has the schema nan and this version"),
        ("{}" + " " * 2_000_000, "has more than 2,000,000 bytes; submit"),
    ],
)
def test_a_file_that_is_no_submission_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"theirs\.json' {reason}"):
        submissions.read(submit(content, tmp_path))
    with pytest.raises(InputError, match="holds no .json file"):
        submissions.files([tmp_path / "."] if not list(tmp_path.glob("*.json")) else [ROOT / "src"])


def test_the_page_has_every_row_and_escapes_what_others_wrote(tmp_path: Path) -> None:
    made = build(list(POOLS), away="pools/away does not exist")
    experiments = [experiment(pool) for pool in POOLS]
    content = results._page("g", GRID, experiments, GROUPS, ["g-away"], "0" * 40)
    results._write(tmp_path / "page", content | page.values(made))
    html = (tmp_path / "page" / "index.html").read_text()
    assert "<b>BY</b>" not in html
    assert '<a href="https://example.org/good">good</a>' in html
    assert "pools/away does not exist" in html
    assert len(re.findall(r'<td class="narrow">(1 to 2|3)</td>', html)) == 3
    assert "the order is not known" in html
    assert "As many further real images" not in html  # there is no arm more_real
    assert html.count("all pools") == len(SIZES)
    assert html.count("0.7%") + html.count("0.714 %") == 3
    written = (tmp_path / "page" / "leaderboard.json").read_bytes()
    assert schema.Leaderboard.model_validate_json(written) == made
    printed = list(page.lines(made))
    assert printed[1].startswith("  1 to 2. alike: ")
    assert printed[-1] == "  not run: away: pools/away does not exist"


def test_only_pools_with_images_of_both_classes_are_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    definition = GRID.model_copy(update={"pools": {n: GRID.pools[n] for n in ("alike", "away")}})
    planned = runs("g", definition)
    raw = load.read(ROOT / "params.yaml") | {"n_real": 4, "ratio": 1}
    raw["synthesize"]["images"] = 4
    resolved = plan.resolve(raw, planned)
    with pytest.raises(
        InputError, match="images of none of the 2 runs of grids/g.yaml are here, since"
    ):
        queue._possible("g", planned, resolved, None, ranked=True)
    for name in ("benign/1.png", "benign/2.png"):
        (tmp_path / "alike" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "alike" / name).touch()
    with pytest.raises(InputError, match="names 2 benign and 0 malignant images but .* takes 2 of"):
        queue._possible("g", planned, resolved, None, ranked=True)
    (tmp_path / "alike" / "malignant").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "alike" / "malignant" / name).touch()
    capsys.readouterr()
    here, _ = queue._possible("g", planned, resolved, None, ranked=True)
    assert [run.name for run in here] == ["g-alike"]
    assert "g-away is not run: synthesize.released.folder 'away' does not exist" in (
        capsys.readouterr().out
    )
    raw["train"]["arms"] = ["mixture"]
    with pytest.raises(InputError, match="g-alike has no arm real, .* add real to train.arms"):
        queue._possible("g", planned[:1], plan.resolve(raw, planned[:1]), None, ranked=True)
    raw["train"] |= {"arms": ["real", "mixture"], "curve": []}
    with pytest.raises(
        InputError, match="g-alike trains .* at 1 sizes and .* needs 3; add smaller"
    ):
        queue._possible("g", planned[:1], plan.resolve(raw, planned[:1]), None, ranked=True)
    raw["train"] |= {"curve": [0.5, 2]}
    few = pd.DataFrame({"label": ["benign"] * 4 + ["malignant"] * 3, "split": "train"})
    with pytest.raises(
        InputError, match=r"at 2 sizes \(.*real_x2.*\) and an exchange rate needs 3"
    ):
        queue._possible("g", planned[:1], plan.resolve(raw, planned[:1]), few, ranked=True)


@pytest.mark.slow
def test_the_speed_is_that_of_the_run_that_sampled_these_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".dvc").mkdir()
    paths.SYNTHETIC.mkdir()
    (paths.SYNTHETIC / "one").write_text("an image")
    pool = tracking.dvc_hash(paths.SYNTHETIC)
    assert images._speed(pool) == (None, "")
    assert not (tmp_path / "mlruns").exists()  # asking makes no store
    with tracking.start("generator", "synthesize", {}, []) as log:
        for step, speed in enumerate((10.0, 90.0, 20.0)):
            log.metrics({"images_per_second": speed}, step)
        log.outputs(paths.SYNTHETIC)
    assert images._speed(pool) == (20.0, machine.device())
    assert images._speed("another pool") == (None, "")
