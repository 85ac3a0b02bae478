"""`train.draw` matched: as many benign as malignant images from every source and scale."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import toy_corpus as toy

from dermaflux import conditions, paths
from dermaflux.classifiers.data import real_draws, training_set
from dermaflux.core import matching, table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Params, load
from dermaflux.registry import candidates
from dermaflux.validation import mixture_gate

BY = ("source", "scale")
SIZES = {
    ("isic2024", 128): (400, 9),
    ("isic2019", 256): (90, 60),
    ("isic2019", 512): (40, 31),
    ("milk10k", 512): (12, 44),
    ("isic2020", 512): (70, 0),
}
"""Group -> benign and malignant images."""
PAIRS = {group: min(sizes) for group, sizes in SIZES.items()}


def corpus() -> pd.DataFrame:
    rows = [
        {"image_id": f"{source}/{scale}-{label}-{n}", "label": label, "source": source}
        | {"scale": scale, "modality": None, "skin_tone": None}
        for (source, scale), sizes in SIZES.items()
        for label, size in zip(CLASSES, sizes, strict=True)
        for n in range(size)
    ]
    return pd.DataFrame(rows)


def drawn(rows: pd.DataFrame, found: matching.Pairs, size: int) -> dict[str, Counter[object]]:
    """Class -> group -> images among the first `size` pairs."""
    keyed = rows.set_index("image_id")
    return {
        name: Counter(zip(*(keyed.loc[ids[:size], key] for key in BY), strict=True))
        for name, ids in found.image_ids.items()
    }


def webster(seats: int) -> set[tuple[int, ...]]:
    """Apportionments of Webster's method, from its definition: round every quotient by a divisor.

    The divisors tried are those at which a quotient crosses a half, and points between them.
    """
    edges = sorted({Fraction(2 * k, 2 * n + 1) for k in PAIRS.values() if k for n in range(k)})
    between = [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)]
    tried = [edges[0] / 2, *between, edges[-1] * 2]
    results = {tuple(int(k / each + Fraction(1, 2)) for k in PAIRS.values()) for each in tried}
    return {result for result in results if sum(result) == seats}


def test_every_draw_holds_each_group_in_equal_numbers_and_in_its_share() -> None:
    rows = corpus()
    found = matching.pairs(rows, BY, seed=3)
    total = sum(PAIRS.values())
    assert len(found) == matching.count(rows, BY) == total == 112
    compared = 0
    for size in range(1, total + 1):
        benign, malignant = drawn(rows, found, size).values()
        assert benign == malignant
        for apportioned in webster(size):  # none where groups tie for the last seat
            assert tuple(benign[group] for group in SIZES) == apportioned
            compared += 1
    assert compared > 80
    assert found.groups == (4, 5)
    assert found.unpaired == {
        "benign": {
            **{"isic2024, 128 pixels": 391, "isic2020, 512 pixels": 70},
            **{"isic2019, 256 pixels": 30, "isic2019, 512 pixels": 9},
        },
        "malignant": {"milk10k, 512 pixels": 32},
    }
    said = found.said("train.draw", "training")
    assert "500 benign images, most of them (391) of isic2024, 128 pixels" in said


def test_the_order_is_that_of_ids_alone_and_of_the_seed() -> None:
    rows = corpus()
    found = matching.pairs(rows, BY, 0)
    assert matching.pairs(rows.sample(frac=1, random_state=1), BY, 0) == found
    other = matching.pairs(rows, BY, 1)
    assert set(other.image_ids["benign"]) != set(found.image_ids["benign"])
    assert set(other.image_ids["malignant"][:30]) != set(found.image_ids["malignant"][:30])
    coarse = matching.pairs(rows, ["source"], 0)
    assert len(coarse) == 9 + 91 + 12
    missing = matching.pairs(rows, ["skin_tone"], 0)  # no value is a value like any other
    assert (len(missing), missing.groups) == (144, (1, 1))


def parameters(**changes: object) -> Params:
    raw = toy.parameters().model_dump(by_alias=True)
    top = {name: changes.pop(name) for name in ("n_real", "ratio") if name in changes}
    settings = {"draw": "matched", "arms": ["real", "more_real", "mixture"], **changes}
    return load.parse({**raw, **top, "train": {**raw["train"], **settings}})


@pytest.mark.usefixtures("workspace")
def test_all_arms_and_the_validation_images_of_a_cell_follow_the_law(capsys) -> None:
    run = parameters(n_real=40, curve=[0.5, 2])  # of 30 and 20 pairs
    cell = training_set.load(run, 0, mixture_gate.check, run.training("vit").arms)
    sources = table.metadata(paths.CORPUS).set_index("image_id")["source"]
    held: set[str] = set()
    for arm, size in {"real_x0.5": 20, "real": 40, "more_real": 60, "real_x2": 80}.items():
        images = cell.real(arm)
        of_class = [
            Counter(sources[np.array(images.image_ids)[images.labels == k]]) for k in (0, 1)
        ]
        assert of_class[0] == of_class[1]
        assert of_class[0]["isic2019"] == pytest.approx(size / 2 * 30 / 50, abs=0.5)
        assert (len(images.labels), held < set(images.image_ids)) == (size, True)
        held = set(images.image_ids)
    validation = cell.validation
    assert (len(validation.labels), int(validation.labels.sum())) == (30, 15)
    first, second = validation.labels[:15], validation.labels[15:]
    assert (first.max(), second.min()) == (0, 1)  # pairs in one order: a shorter list stays matched
    assert training_set.load(run, 1, mixture_gate.check, ["real"]).validation.image_ids == (
        validation.image_ids
    )
    assert candidates.validation_split(run).index.to_list() == sorted(validation.image_ids)
    told = capsys.readouterr().out
    assert "the training split holds 50 pairs of a benign and a malignant image of the same" in told
    assert (
        "without a partner, and so not used: 30 benign images, most of them (30) of isic2" in told
    )
    pooled = parameters(n_real=40, draw="pooled")
    assert len(candidates.validation_split(pooled)) == 45


@pytest.mark.usefixtures("workspace")
def test_what_the_law_cannot_give_is_told_before_any_work() -> None:
    run = parameters(n_real=102)
    said = (
        "n_real 102 under train.draw matched needs 51 pairs of a benign and a malignant image of "
        "the same source and scale but the training split holds 50; lower n_real to 100, shorten "
        "train.match_by, or set train.draw to pooled"
    )
    with pytest.raises(InputError, match=said):
        training_set.load(run, 0, mixture_gate.check, ["real"])
    assert said in list(conditions.unmet(run))
    (short,) = conditions.shortages(parameters(n_real=80, ratio=0.5, arms=["real", "more_real"]))
    assert "needs 20 further benign images but the matched training split holds 10" in short
    rows = table.metadata(paths.CORPUS, real_draws.COLUMNS, "validation")
    with pytest.raises(InputError, match="none of the 30 has a partner; raise"):
        real_draws.judges(rows[rows["label"] == "benign"], run.train)
    with pytest.raises(InputError, match="real_fraction 0.5 keeps their proportions"):
        load.parse({**run.model_dump(by_alias=True), "real_fraction": 0.5})
