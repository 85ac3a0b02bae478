"""What a policy keeps: which image leaves for which reason, and which do not interact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from decoded_items import decoded_item
from ingested import settings

from dermaflux.core.vocabulary import CLASSES
from dermaflux.corpus import require
from dermaflux.corpus.splitting import policies
from dermaflux.corpus.splitting.records import DecodedItem
from dermaflux.corpus.splitting.selection import Selection, select
from dermaflux.errors import InputError

CLEAN = policies.policy("clean", settings().ingest)
NO_PAIRS = np.empty((0, 2), dtype=np.int64)


def selected(
    images: list[DecodedItem],
    edges: Any = NO_PAIRS,
    published: Any = NO_PAIRS,
    policy: policies.Policy = CLEAN,
) -> Selection:
    return select(images, np.array(edges), np.array(published), policy, 0.3, seed=5)


def rules(images: list[DecodedItem], selection: Selection) -> dict[str, tuple[str, str]]:
    return {
        images[index].item.image_id: (stage, problem.rule)
        for index, (stage, problem) in selection.lost.items()
    }


def test_each_image_leaves_for_the_first_reason_that_holds() -> None:
    images = [
        decoded_item("ddi/unclear", label="indeterminate"),
        decoded_item("ddi/small", width=127),
        decoded_item("isic2019/test", split="test"),
        decoded_item("ddi/leak", lesion_id="l"),
        decoded_item("ddi/lesion of the leak", lesion_id="l"),
        decoded_item("ddi/large", width=600, height=400),
        decoded_item("ddi/copy of large"),
        decoded_item("ddi/benign copy"),
        decoded_item("ddi/malignant copy", label="malignant"),
        decoded_item("ddi/alone"),
    ]
    edges = [(2, 3), (0, 2), (6, 5), (7, 8), (1, 9)]
    selection = selected(images, edges, published=[(2, 3)])
    assert rules(images, selection) == {
        "ddi/unclear": ("source", "indeterminate"),
        "ddi/small": ("decode", "too-small"),
        "ddi/leak": ("leak", "test-leak"),
        "ddi/lesion of the leak": ("leak", "test-leak"),
        "ddi/copy of large": ("duplicate", "duplicate"),
        "ddi/benign copy": ("duplicate", "label-conflict"),
        "ddi/malignant copy": ("duplicate", "label-conflict"),
    }
    assert [images[index].item.image_id for index in selection.kept()] == [
        *("isic2019/test", "ddi/large", "ddi/alone")
    ]
    assert [(row["image_id"], row["tie"]) for row in selection.leaks] == [
        ("ddi/leak", "published list"),
        ("ddi/lesion of the leak", "chain"),
    ]
    assert selection.groups[5] == selection.groups[6] == "ddi/copy of large"
    assert selection.groups[9] is None  # its only copy left before groups were made
    assert selection.splits[2] == "test"
    assert selection.counts() == {
        "training": {"256": 2},
        "test": {"256": 1},
        "labels": {"benign": 3},
        "left_out": {
            "indeterminate": 1,
            "too-small": 1,
            "test-leak": 2,
            "duplicate": 1,
            "label-conflict": 2,
        },
    }


def random_corpus(seed: int, count: int = 120) -> tuple[list[DecodedItem], np.ndarray]:
    """Images of which a third leave by themselves, and pairs that show one photograph."""
    random = np.random.default_rng(seed)
    images = [
        decoded_item(
            f"isic2019/{number:03d}",
            width=int(random.choice([100, 200, 300])),
            split=random.choice(["train", "train", "train", "test"]),
            label=str(random.choice(["benign", "malignant", "indeterminate"], p=[0.45, 0.45, 0.1])),
            lesion_id=f"l{random.integers(60)}" if random.random() < 0.5 else None,
            patient_id=f"p{random.integers(60)}" if random.random() < 0.3 else None,
        )
        for number in range(count)
    ]
    return images, random.integers(0, count, (40, 2))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_images_that_leave_by_themselves_change_nothing_for_the_others(
    seed: int, duplicates: Any
) -> None:
    """The second route drops them before it begins, and renumbers the pairs by hand."""
    policy = replace(CLEAN, duplicates=duplicates)
    images, edges = random_corpus(seed)
    whole = selected(images, edges, edges[:10], policy)
    stay = [
        index
        for index, image in enumerate(images)
        if image.item.record.facts.label != "indeterminate" and image.image.width >= 128
    ]
    assert 0 < len(stay) < len(images)

    def renumbered(pairs: np.ndarray) -> list[tuple[int, int]]:
        both_stay = [pair for pair in pairs.tolist() if set(pair) <= set(stay)]
        return [(stay.index(a), stay.index(b)) for a, b in both_stay]

    few = [images[index] for index in stay]
    part = selected(few, renumbered(edges), renumbered(edges[:10]), policy)
    assert {stay[index]: reason for index, reason in part.lost.items()} == {
        index: reason for index, reason in whole.lost.items() if index in stay
    }
    assert part.splits == [whole.splits[index] for index in stay]
    assert part.groups == [whole.groups[index] for index in stay]
    assert part.leaks == whole.leaks
    assert any(stage == "leak" for stage, _ in part.lost.values())


def validated(by: str, images: list[DecodedItem], edges: Any = NO_PAIRS) -> Selection:
    return selected(images, edges, policy=replace(CLEAN, validation_by=by))


def test_a_published_validation_part_is_taken_or_left_out() -> None:
    images = [
        decoded_item("isic2018/validation", split="validation", lesion_id="v"),
        decoded_item("isic2018/its copy"),
        decoded_item("isic2018/its lesion", lesion_id="v"),
        decoded_item("isic2018/another"),
        decoded_item("isic2018/test", split="test"),
        decoded_item("isic2018/tested", split="validation"),
    ]
    edges = [(0, 1), (4, 5)]
    taken = validated("published", images, edges)
    assert taken.splits[:5] == ["validation", "validation", "validation", "train", "test"]
    assert rules(images, taken) == {
        "isic2018/tested": ("leak", "test-leak"),
        "isic2018/validation": ("duplicate", "duplicate"),
    }
    for by in ("group", "image"):
        drawn = validated(by, images, edges)
        left = ("source", "published-validation")
        assert rules(images, drawn) == {images[index].item.image_id: left for index in (0, 5)}
        assert drawn.splits[4] == "test"


def test_a_published_validation_part_that_test_images_take_is_refused() -> None:
    """As ISIC 2019's test part takes the 193 of ISIC 2018."""
    images = [decoded_item(f"isic2018/{name}", label=name) for name in CLASSES]
    images += [
        decoded_item("isic2018/official", split="validation"),
        decoded_item("isic2019/official", split="test"),
    ]
    ingest = settings(validation_by="published").ingest
    require.before_writing(validated("published", images), [], ingest)
    with pytest.raises(InputError, match="none of the 3 images that are kept is in a .* isic2019"):
        require.before_writing(validated("published", images, [(2, 3)]), [], ingest)


def test_images_drawn_one_by_one_share_lesions_with_training() -> None:
    images = [
        decoded_item(f"isic2018/{n:04d}", lesion_id=f"l{n // 4}", label=CLASSES[n % 2])
        for n in range(1000)
    ]
    parts = {by: validated(by, images).splits for by in ("group", "image")}
    mixed = {
        by: sum(len(set(splits[first : first + 4])) == 2 for first in range(0, 1000, 4))
        for by, splits in parts.items()
    }
    assert mixed["group"] == 0
    # Four images fall on one side with probability 0.3^4 + 0.7^4 = 0.248.
    assert abs(mixed["image"] / 250 - 0.752) < 0.1
    for splits in parts.values():
        assert abs(splits.count("validation") / 1000 - 0.3) < 0.1
