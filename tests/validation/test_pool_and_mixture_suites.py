"""Suites `synthetic` and `mixture`: good tables pass, and each check has data that fails it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dermaflux import paths
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import Params, Synthesize
from dermaflux.params.load import load
from dermaflux.validation import (
    cached_check,
    corpus_suite,
    mixture_gate,
    mixture_suite,
    pool_suite,
    validate,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def params() -> Params:
    raw = load(ROOT / "params.yaml")
    small = raw.synthesize.model_copy(update={"images": 40})
    return raw.model_copy(update={"n_real": 20, "ratio": 1.0, "synthesize": small})


def _pool(params: Params) -> pd.DataFrame:
    section = params.synthesize
    settings = section.settings("flux_lora").model_dump()
    frame = pd.DataFrame({"image_id": [f"synthetic/{index:06d}" for index in range(40)]})
    for name in table.METADATA:
        if name not in frame:
            frame[name] = None
    constants = {
        "source": "synthetic", "split": "train", "licence": "apache-2.0",
        "generator": "flux_lora", "weights": "ab" * 32, "prompt": "a lesion", "batch": 0,
        "sampler_settings": "{}",
        "width": section.scale, "height": section.scale, "scale": section.scale,
        "steps": settings["steps"], "guidance": settings["guidance"],
    }  # fmt: skip
    frame = frame.assign(**constants, seed=range(40))
    frame["label"] = ["benign", "malignant"] * 20
    frame["sha256"] = [f"{index:064x}" for index in range(40)]
    return frame


def _settings(params: Params) -> tuple[Synthesize, dict[str, float]]:
    section = params.synthesize
    settings = section.settings("flux_lora").model_dump()
    return section, {name: settings[name] for name in ("steps", "guidance")}


def _with(frame: pd.DataFrame, indices: list[int], **values: object) -> pd.DataFrame:
    frame = frame.copy()
    for name, value in values.items():
        frame.loc[indices, name] = value
    return frame


BROKEN_POOL: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "columns": lambda f: f.drop(columns="weights"),
    "pool size": lambda f: f[:38],
    "unique ids": lambda f: _with(f, [3], image_id="synthetic/000004"),
    "unique seeds": lambda f: _with(f, [3], seed=4),
    "unique images": lambda f: _with(f, [3], sha256=f"{4:064x}"),
    "label vocabulary": lambda f: _with(f, [3], label="indeterminate"),
    "split vocabulary": lambda f: _with(f, [3], split="test"),
    "side": lambda f: _with(f, [3], width=64, height=64),
    "side present": lambda f: _with(f, [3], width=64),
    "scale consistency": lambda f: _with(f, [3], scale=512),
    "steps": lambda f: _with(f, [3], steps=3),
    "guidance": lambda f: _with(f, [3], guidance=1.0),
    "one generator": lambda f: _with(f, [3], weights="cd" * 32),
    "label balance": lambda f: _with(f, [3, 5], label="benign"),
    **{
        f"{name} present": lambda f, name=name: _with(f, [3], **{name: None})
        for name in (*pool_suite.PROVENANCE, "steps", "guidance")
    },
}


def test_good_pools_of_even_and_odd_size_and_of_released_images_pass(params):
    pool = _pool(params)
    section, sampler = _settings(params)
    pool_suite.check(pool, section, sampler)
    pool_suite.check(pool[:39], section.model_copy(update={"images": 39}), sampler)
    # Of released images neither prompt nor sampler is known.
    unknown = pool.assign(prompt=None, seed=None, steps=None, guidance=None, batch=None)
    pool_suite.check(unknown, section, None)


NEVI = ["nevus"] * 28 + ["melanoma"] * 12
ASKED: dict[str, tuple[dict[str, object], dict[str, object], dict[str, object], str]] = {
    "shares of labels": (
        {"proportions": {"benign": 0.7, "malignant": 0.3}},
        {"label": ["benign"] * 28 + ["malignant"] * 12},
        {"label": ["benign"] * 26 + ["malignant"] * 14},
        "label balance",
    ),
    "natural": (
        {"proportions": "natural"}, {"label": "benign"}, {"label": "indeterminate"},
        "label vocabulary",
    ),
    "diagnoses": (
        {"conditions": "diagnosis"}, {"diagnosis": NEVI, "label": "benign"}, {"diagnosis": None},
        "diagnosis present",
    ),
    "shares of diagnoses": (
        {"conditions": "diagnosis", "proportions": {"nevus": 0.7, "melanoma": 0.3}},
        {"diagnosis": NEVI}, {"diagnosis": [*NEVI[:39], "wart"]}, "diagnosis vocabulary",
    ),
    "numbers of diagnoses": (
        {"conditions": "diagnosis", "proportions": {"nevus": 0.7, "melanoma": 0.3}},
        {"diagnosis": ["nevus"] * 29 + ["melanoma"] * 11},
        {"diagnosis": ["nevus"] * 30 + ["melanoma"] * 10},
        "number of nevus images, number of melanoma images",
    ),
    "none": (
        {"conditions": "none"}, {"label": "indeterminate", "prompt": ""}, {"label": "benign"},
        "label vocabulary",
    ),
}  # fmt: skip
"""Changes of the parameters, columns of a good pool, of a bad one, and the checks that it fails."""


@pytest.mark.parametrize("case", ASKED)
def test_a_pool_holds_what_its_images_were_asked_to_show(case, params):
    changes, good, bad, name = ASKED[case]
    section, sampler = _settings(params)
    checks = pool_suite.checks(section.model_copy(update=changes), sampler)

    def failures(columns: dict[str, object]) -> set[str]:
        pool = pool_suite.with_derived_columns(_pool(params).assign(**columns))
        return {failure["name"] for failure in validate.failures("synthetic", pool, checks)}

    assert failures(good) == set()
    assert failures({**good, **bad}) == {*name.split(", ")}


@pytest.mark.parametrize("name", BROKEN_POOL)
def test_a_broken_pool_is_refused(name, params):
    pool = BROKEN_POOL[name](_pool(params))
    frame, checks = pool_suite.with_derived_columns(pool), pool_suite.checks(*_settings(params))
    failures = validate.failures("synthetic", frame, checks)
    assert name in {failure["name"] for failure in failures}
    with pytest.raises(InputError, match="of the synthetic suite"):
        pool_suite.check(pool, *_settings(params))


def _rows(prefix: str, count: int, split: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"{prefix}/{index}" for index in range(count)],
            "label": ["benign", "malignant"] * (count // 2),
            "source": prefix,
            "split": split,
            "sha256": [f"{prefix}-{index}" for index in range(count)],
            "lesion_id": [f"{prefix}-lesion-{index}" for index in range(count)],
            "patient_id": None,
            "duplicate_group": None,
        }
    )


def _mixture(**changes: pd.DataFrame | list[str]) -> pd.DataFrame:
    parts = {
        "real": _rows("isic2019", 20, "train"),
        "synthetic": _rows("synthetic", 20, "train"),
        "held_out": _rows("isic2020", 6, "test"),
        "rejected": [],
        **changes,
    }
    return mixture_suite.with_derived_columns(**parts)


REAL, HELD_OUT = _rows("isic2019", 20, "train"), _rows("isic2020", 6, "test")
BROKEN_MIXTURE: dict[str, pd.DataFrame] = {
    "unique ids": _mixture(real=_with(REAL, [3], image_id="isic2019/4")),
    "label vocabulary": _mixture(real=_with(REAL, [2], label="indeterminate")),
    "split vocabulary": _mixture(real=_with(REAL, [2], split="validation")),
    "number of real images": _mixture(real=REAL[:18]),
    "number of synthetic images": _mixture(synthetic=_rows("synthetic", 22, "train")),
    "balance of real": _mixture(real=_with(REAL, [2], label="malignant")),
    "balance of synthetic": _mixture(
        synthetic=_with(_rows("synthetic", 20, "train"), [2], label="malignant")
    ),
    "not memorised": _mixture(rejected=["synthetic/7", "synthetic/999"]),
    "image not held out": _mixture(held_out=_with(HELD_OUT, [0], sha256="isic2019-5")),
    "lesion not held out": _mixture(held_out=_with(HELD_OUT, [0], lesion_id="isic2019-lesion-5")),
    "patient not held out": _mixture(
        real=_with(REAL, [5], patient_id="IP_1"), held_out=_with(HELD_OUT, [0], patient_id="IP_1")
    ),
    "duplicate group not held out": _mixture(
        real=_with(REAL, [5], duplicate_group="g"),
        held_out=_with(HELD_OUT, [0], duplicate_group="g"),
    ),
    "label present": _mixture(real=_with(REAL, [2], label=None)),
    "source present": _mixture(real=_with(REAL, [2], source=None)),
    "sha256 present": _mixture(real=_with(REAL, [2], sha256=None)),
    "image_id present": _mixture(real=_with(REAL, [2], image_id=None)),
}


def test_good_mixtures_pass(params):
    validate.check("mixture", _mixture(), mixture_suite.checks(params, "mixture", ()))
    alone = _mixture(synthetic=_rows("synthetic", 0, "train"))
    validate.check("mixture", alone, mixture_suite.checks(params, "real", ()))
    odd = params.model_copy(update={"n_synthetic": 21})  # of an odd number one image is left out
    validate.check("mixture", _mixture(), mixture_suite.checks(odd, "mixture", ()))


@pytest.mark.parametrize("name", BROKEN_MIXTURE)
def test_a_broken_mixture_is_refused(name, params):
    checks = mixture_suite.checks(params, "mixture", ())
    with pytest.raises(InputError):
        validate.check("mixture", BROKEN_MIXTURE[name], checks)
    failures = {
        failure["name"]: failure
        for failure in validate.failures("mixture", BROKEN_MIXTURE[name], checks)
    }
    assert name in failures
    if name == "lesion not held out":
        assert failures[name]["examples"] == ["isic2019/5"]
        assert failures[name]["values"] == ["isic2020/0"]


def test_every_check_has_data_that_fails_it(params):
    names = {check.name for check in pool_suite.checks(*_settings(params))}
    assert names == set(BROKEN_POOL)
    names = {check.name for check in mixture_suite.checks(params, "mixture", ())}
    assert names == set(BROKEN_MIXTURE)


def test_a_leak_of_the_published_protocol_only_warns(params, capsys):
    checks = mixture_suite.checks(params, "mixture", ("validation", "test"))
    validate.check("mixture", BROKEN_MIXTURE["lesion not held out"], checks)
    assert "'lesion not held out'" in capsys.readouterr().out


def test_lesions_on_both_sides_only_warn_where_images_are_drawn_one_by_one(params):
    """Those of a test image stop the pipeline even there."""
    tie = {"lesion_id": "isic2019-lesion-5"}
    corpus = {
        split: pd.concat(
            [_rows("isic2019", 20, "train"), _with(_rows("ddi", 6, split), [0], **tie)]
        )
        for split in ("validation", "test")
    }
    for by, policy, stopped in (
        ("group", "clean", {"validation", "test"}),
        ("image", "clean", {"test"}),
        ("published", "clean", {"validation", "test"}),
        ("image", "as_published", set()),
        ("test", "clean", set()),
    ):
        drawn_by = {"test_by": "image"} if by == "test" else {"validation_by": by}
        ingest = params.ingest.model_copy(update={**drawn_by, "policy": policy})
        chosen = params.model_copy(update={"ingest": ingest})
        leaking = corpus_suite.leaking_splits(chosen)
        for split, rows in corpus.items():
            frame = corpus_suite.with_derived_columns(rows, pd.DataFrame())
            table_checks = [
                check for check in corpus_suite.checks(chosen, rows) if "split" in check.name
            ]
            table_checks = [check for check in table_checks if "lesion" in check.name]
            drawn = _mixture(held_out=_with(HELD_OUT.assign(split=split), [0], **tie))
            for suite, found, checks in (
                ("corpus", frame, table_checks),
                ("mixture", drawn, mixture_suite.checks(params, "mixture", leaking)),
            ):
                if split in stopped:
                    with pytest.raises(InputError, match="'lesion "):
                        validate.check(suite, found, checks)
                else:
                    assert validate.check(suite, found, checks) == 1


def test_a_passed_check_is_not_repeated_and_a_failed_one_is(params, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checks = mixture_suite.checks(params, "mixture", ())
    runs = []
    check = validate.check
    monkeypatch.setattr(validate, "check", lambda *args: runs.append(args[0]) or check(*args))
    for _ in range(2):
        cached_check.check("mixture", _mixture(), checks)
    assert len(runs) == 1
    cached_check.check("mixture", _mixture(), checks[1:])
    assert len(runs) == 2, "other checks of the same table are run"
    leak = BROKEN_MIXTURE["lesion not held out"]
    for _ in range(2):
        with pytest.raises(InputError, match="lesion not held out"):
            cached_check.check("mixture", leak, checks)
    lenient = mixture_suite.checks(params, "mixture", ("validation", "test"))
    for _ in range(2):
        cached_check.check("mixture", leak, lenient)
        assert "'lesion not held out'" in capsys.readouterr().out


def _write(rows: pd.DataFrame, folder: Path) -> None:
    frame = rows.reindex(columns=[name for name in table.SCHEMA.names if name != "image"])
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    table.write([{"image": None, **record} for record in records], folder, 64)


def test_the_gate_reads_the_tables_and_refuses_what_leaks(params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cached_check, "project_root", lambda: tmp_path)
    held_out = [_rows("isic2020", 6, "test"), _rows("ddi", 4, "validation")]
    # Two more training images than the arm draws; one of them shares a lesion with the test split.
    train = _rows("isic2019", 22, "train")
    train.loc[21, "lesion_id"] = "isic2020-lesion-0"
    _write(pd.concat([train, *held_out]), paths.CORPUS)
    _write(_rows("synthetic", 30, "train"), paths.SYNTHETIC)
    real = [f"isic2019/{index}" for index in range(20)]
    synthetic = [f"synthetic/{index}" for index in range(20)]
    mixture_gate.check(params, real, synthetic, ["synthetic/25"])
    mixture_gate.check(params, real, [], [])
    with pytest.raises(InputError, match=r"'lesion not held out'.*isic2019/21 \(isic2020/0\)"):
        mixture_gate.check(params, [*real[:19], "isic2019/21"], synthetic, [])
    with pytest.raises(InputError, match="'not memorised'.*synthetic/7"):
        mixture_gate.check(params, real, synthetic, ["synthetic/7"])
