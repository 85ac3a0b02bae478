"""Manifest rows with any values: the condition they say, or one sentence before a model is loaded.

Whoever writes a table can write its seal, so a pool of somebody else may hold anything.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_corpus
from hypothesis import given
from hypothesis import strategies as st
from mutations import answered

from dermaflux.core import table
from dermaflux.core.hashing import sha256
from dermaflux.generators import registry, reproduce
from dermaflux.generators.protocol import Condition, Models

SETTINGS = {"steps": 2, "guidance": 3.5, "base_dtype": "fp32", "prompt_padding": "trim"}
ROW = {
    "generator": "flux_lora", "prompt": "a mole", "seed": 7, "weights": "0" * 64, "batch": 0,
    "scale": 128, "sampler_settings": json.dumps(SETTINGS),
}  # fmt: skip
TEXT = st.none() | st.text(max_size=10)
NUMBER = st.none() | st.integers(-(2**31), 2**31 - 1)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "label": TEXT,
        "diagnosis": TEXT,
        "prompt": TEXT,
        "generator": TEXT | st.just("released"),
        "weights": TEXT,
        "scale": NUMBER,
        "batch": NUMBER,
        "seed": st.none() | st.integers(-(2**63), 2**63 - 1),
        "image": st.none() | st.binary(max_size=20),
        "sampler_settings": TEXT
        | st.sampled_from(["{", "[]", "{}", "null", "[" * 5000, "9" * 5000])
        | st.dictionaries(
            st.sampled_from([*SETTINGS, "x"]),
            st.none() | st.floats() | st.integers() | st.text(max_size=5) | st.just([[]]),
        ).map(json.dumps),
    },
)


class Sampler:
    """Checks what a sampler relies on, and samples nothing."""

    def __call__(self, conditions: Sequence[Condition]) -> np.ndarray[Any, Any]:
        for condition in conditions:
            assert isinstance(condition.label, str)
            assert isinstance(condition.prompt, str)
            assert condition.scale in (128, 256, 512)
            assert 0 <= condition.seed < 2**63
        return np.zeros((len(conditions), 32, 32, 3), np.uint8)


class Generator:
    def weights_id(self, models: Models) -> str:
        return "0" * 64

    def open(self, models: Models, settings: Mapping[str, Any]) -> Sampler:
        assert 1 <= settings["steps"] <= 100_000
        assert np.isfinite(settings["guidance"])
        return Sampler()


def again(changes: Mapping[str, Any], patch: pytest.MonkeyPatch) -> Any:
    patch.setattr(registry, "generator", lambda name: Generator())
    first, *others = toy_corpus.rows("train", "synthetic", 2, 1, 0)
    row = first | ROW | changes
    if "image" in changes:
        content = changes["image"]
        row |= {"image": {"bytes": content, "path": None}, "sha256": sha256(content or b"")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "synthetic"
        folder.mkdir()
        rows = [row, *(other | ROW for other in others)]
        table.write_shard(rows, folder / table.shard_name("train", 0, 1))
        models = Models(Path(), Path())
        return answered(lambda: reproduce.sample_again(str(row["image_id"]), folder, models))


@given(CHANGES)
def test_any_values_of_a_row(changes: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        sampled = again(changes, patch)
    if sampled is not None:
        assert sampled[1].shape == (toy_corpus.SIDE, toy_corpus.SIDE, 3)


def test_the_whole_row_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert again({}, monkeypatch) is not None
    assert again({"sampler_settings": json.dumps(SETTINGS | {"steps": 10**9})}, monkeypatch) is None
