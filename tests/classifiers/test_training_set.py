"""The images of a cell: what each arm trains on, and the gate before any of them is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy_corpus as toy
from ruamel.yaml import YAML

from dermaflux import cli, paths
from dermaflux.classifiers.data import pixel_cache, subset, training_set
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import Arm, Params
from dermaflux.validation import mixture_gate

ARMS: list[Arm] = ["real", "mixture"]


pytestmark = pytest.mark.usefixtures("workspace")


def test_arms_share_their_real_images_and_rejected_ones_stay_out() -> None:
    images = training_set.load(toy.parameters(ratio=0.9), 0, mixture_gate.check, ARMS)
    real, mixture, repeated = (images.of(arm) for arm in ("real", "mixture", "repeated"))
    assert real.image_ids == repeated.image_ids == mixture.image_ids[:60]
    assert [len(part.image_ids) for part in (real, mixture)] == [60, 114]
    assert [int(part.labels.sum()) for part in (real, mixture)] == [30, 57]
    assert images.added == {0: 27, 1: 27}
    assert "synthetic/train-0000" not in mixture.image_ids
    assert set(images.validation.image_ids).isdisjoint(mixture.image_ids)
    for samples in (real, mixture, images.validation):
        pixels = np.asarray(samples.pixels).reshape(len(samples.labels), -1)
        bright = pixels.max(axis=1) > 150
        assert np.array_equal(bright, samples.labels == 1)  # pixels, labels and ids stay together
    assert images.digests("mixture")[:2] == images.digests("real") == images.digests("repeated")


def test_another_seed_draws_other_images_and_the_same_validation_split() -> None:
    first, second = (
        training_set.load(toy.parameters(), seed, mixture_gate.check, ARMS) for seed in (0, 1)
    )
    for arm in ("real", "mixture"):
        assert set(first.of(arm).image_ids) != set(second.of(arm).image_ids)
    assert first.validation.digest() == second.validation.digest()


def test_the_gate_sees_the_draw_before_any_image_is_decoded() -> None:
    calls = []

    def gate(params: Params, real: list[str], synthetic: list[str], rejected: list[str]) -> None:
        calls.append((real, synthetic, rejected))
        raise InputError("refused")

    for arms in (ARMS[:1], ARMS):
        with pytest.raises(InputError, match="refused"):
            training_set.load(toy.parameters(), 0, gate, arms)
    assert not pixel_cache.cache_folder(toy.SIDE).exists()
    (real, none, unread), (again, synthetic, rejected) = calls
    assert real == again
    assert (len(real), len(synthetic)) == (60, 30)
    assert (none, unread, rejected) == ([], [], ["synthetic/train-0000"])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_command_refuses_images_that_are_also_held_out(split: str) -> None:
    parameters = toy.parameters()
    with Path("params.yaml").open("w") as file:
        YAML(typ="safe").dump(parameters.model_dump(by_alias=True), file)
    rows = table.metadata(paths.CORPUS, split="train")
    shared = subset.draw(rows, subset.balanced(parameters.n_real), 0)[3]
    digest = rows.set_index("image_id").loc[shared, "sha256"]
    (shard,) = table.shards(paths.CORPUS, split)
    shard.unlink()
    leaked = toy.rows(split, "isic2019", 30, 15, 2)
    leaked[4]["sha256"] = digest
    table.write_shard(leaked, paths.CORPUS / table.shard_name(split, 0, 1))
    with pytest.raises(InputError, match=f"held out.* {shared}"):
        cli.train("vit", 0)
    assert not paths.CLASSIFIERS.exists()
