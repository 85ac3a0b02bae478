"""Borders `synthetic` and `mixture`: good tables pass, and each expectation has data it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.params.load import load
from dermaflux.validation import cached_check, training_suites, validate
from dermaflux.validation.checks import Promise

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


def _promises(params: Params) -> list[Promise]:
    settings = params.synthesize.settings("flux_lora").model_dump()
    return training_suites.synthetic_promises(params.synthesize, settings)


def _check_pool(frame: pd.DataFrame, params: Params) -> None:
    derived = training_suites.with_derived_synthetic(frame)
    promises = _promises(params)
    validate.check("synthetic", derived, promises)


def _with(frame: pd.DataFrame, places: list[int], **values: object) -> pd.DataFrame:
    frame = frame.copy()
    for name, value in values.items():
        frame.loc[places, name] = value
    return frame


BROKEN_POOL: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "columns": lambda f: f.drop(columns="weights"),
    "pool size": lambda f: f[:38],
    "unique ids": lambda f: _with(f, [3], image_id="synthetic/000004"),
    "unique seeds": lambda f: _with(f, [3], seed=4),
    "unique pictures": lambda f: _with(f, [3], sha256=f"{4:064x}"),
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
        for name in training_suites.PROVENANCE
    },
}


def test_good_pool_and_an_odd_one_pass(params):
    pool = _pool(params)
    _check_pool(pool, params)
    odd = params.synthesize.model_copy(update={"images": 39})
    _check_pool(pool[:39], params.model_copy(update={"synthesize": odd}))


@pytest.mark.parametrize("name", BROKEN_POOL)
def test_a_broken_pool_is_refused(name, params):
    frame = training_suites.with_derived_synthetic(BROKEN_POOL[name](_pool(params)))
    promises = _promises(params)
    assert name in {one["name"] for one in validate.broken("synthetic", frame, promises)}
    with pytest.raises(InputError, match="of the synthetic suite"):
        validate.check("synthetic", frame, promises)


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
    return training_suites.with_derived_mixture(**parts)


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
    "picture not held out": _mixture(held_out=_with(HELD_OUT, [0], sha256="isic2019-5")),
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
    validate.check(
        "mixture", _mixture(), training_suites.mixture_promises(params, "mixture", False)
    )
    alone = _mixture(synthetic=_rows("synthetic", 0, "train"))
    validate.check("mixture", alone, training_suites.mixture_promises(params, "real", False))
    odd = params.model_copy(update={"n_synthetic": 21})  # an odd one out is not drawn
    validate.check("mixture", _mixture(), training_suites.mixture_promises(odd, "mixture", False))


@pytest.mark.parametrize("name", BROKEN_MIXTURE)
def test_a_broken_mixture_is_refused(name, params):
    promises = training_suites.mixture_promises(params, "mixture", False)
    with pytest.raises(InputError):
        validate.check("mixture", BROKEN_MIXTURE[name], promises)
    broken = {
        one["name"]: one for one in validate.broken("mixture", BROKEN_MIXTURE[name], promises)
    }
    assert name in broken
    if name == "lesion not held out":
        assert broken[name]["examples"] == ["isic2019/5"]
        assert broken[name]["values"] == ["isic2020/0"]


def test_every_expectation_has_data_that_breaks_it(params):
    names = {one.name for one in _promises(params)}
    assert names == set(BROKEN_POOL)
    names = {one.name for one in training_suites.mixture_promises(params, "mixture", False)}
    assert names == set(BROKEN_MIXTURE)


def test_a_leak_of_the_published_protocol_only_warns(params, capsys):
    promises = training_suites.mixture_promises(params, "mixture", True)
    validate.check("mixture", BROKEN_MIXTURE["lesion not held out"], promises)
    assert "'lesion not held out'" in capsys.readouterr().out


def test_a_border_is_crossed_once_and_a_broken_promise_never(params, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    promises = training_suites.mixture_promises(params, "mixture", False)
    checked = []
    plain = validate.check
    monkeypatch.setattr(validate, "check", lambda *given: checked.append(given[0]) or plain(*given))
    for _ in range(2):
        cached_check.check("mixture", _mixture(), promises)
    assert len(checked) == 1
    cached_check.check("mixture", _mixture(), promises[1:])
    assert len(checked) == 2, "other promises are checked"
    leak = BROKEN_MIXTURE["lesion not held out"]
    for _ in range(2):
        with pytest.raises(InputError, match="lesion not held out"):
            cached_check.check("mixture", leak, promises)
    lenient = training_suites.mixture_promises(params, "mixture", True)
    for _ in range(2):
        cached_check.check("mixture", leak, lenient)
        assert "'lesion not held out'" in capsys.readouterr().out
