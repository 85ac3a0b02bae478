"""`finetune.draw` matched: as many benign as malignant images of every source and scale."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest

from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.generators.data import images
from dermaflux.params import Finetune

SIZES = {("tiles", 128): (50, 3), ("clinic", 128): (8, 20), ("clinic", 512): (5, 5)}
"""Group -> benign and malignant images."""


def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {"image_id": f"{source}/{scale}-{label}-{n}", "sha256": "0", "label": label}
        | {"source": source, "scale": scale, "diagnosis": None, "caption": "a mole"}
        for (source, scale), sizes in SIZES.items()
        for label, size in zip(CLASSES, sizes, strict=True)
        for n in range(size)
    )


def drawn(section: Finetune, seed: int = 0) -> tuple[Counter[tuple[str, int, str]], str | None]:
    taken, said = images.matched(rows(), section, seed)
    samples = images.select(taken, section.scales, section.maximum_images, seed)
    return Counter((s.image_id.split("/")[0], s.scale, s.label) for s in samples), said


def test_every_source_and_scale_gives_both_classes_alike() -> None:
    section = Finetune(scales=[128, 512], draw="matched")
    counts, said = drawn(section)
    pairs = {group: min(sizes) for group, sizes in SIZES.items()}
    assert counts == {(*group, label): n for group, n in pairs.items() for label in CLASSES}
    assert said is not None
    assert said.startswith("finetune.draw matched: the train split holds 16 pairs")
    assert "47 benign images, most of them (47) of tiles, 128 pixels" in said
    pooled, nothing = drawn(Finetune(scales=[128, 512]))
    assert nothing is None
    assert pooled["tiles", 128, "benign"] == 50
    assert pooled["tiles", 128, "malignant"] == 3


def test_a_smaller_draw_keeps_the_shares_and_scales_bound_it() -> None:
    small, _ = drawn(Finetune(scales=[128, 512], draw="matched", maximum_images=12))
    halves = [{key[:2]: n for key, n in small.items() if key[2] == label} for label in CLASSES]
    assert halves[0] == halves[1]
    assert sum(halves[0].values()) == 6
    assert halves[0]["clinic", 128] == 3  # half of all pairs
    one, _ = drawn(Finetune(scales=[512], draw="matched"))
    assert set(one) == {("clinic", 512, label) for label in CLASSES}
    # Pairs of a source alone are made of images that can be trained with.
    source, _ = drawn(Finetune(scales=[128], draw="matched", match_by=["source"]))
    sizes = {"tiles": 3, "clinic": 8}
    assert source == {(name, 128, label): n for name, n in sizes.items() for label in CLASSES}


def test_a_corpus_whose_sources_hold_one_class_each_is_refused() -> None:
    table = rows()
    table["source"] = table["label"]
    with pytest.raises(InputError, match="none of the 91 has a partner; shorten finetune.match_by"):
        images.matched(table, Finetune(scales=[128, 512], draw="matched"), 0)
