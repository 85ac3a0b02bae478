from __future__ import annotations

import random

import numpy as np

from dermaflux.corpus.splitting import splits


def table(seed: int, count: int = 400):
    """Ids, held-out flags and three key columns with chains between them."""
    draw = random.Random(seed)
    ids = [f"source/{draw.randrange(10**9):09d}" for _ in range(count)]
    held_out = [draw.random() < 0.1 for _ in range(count)]
    columns = [
        [None if draw.random() < 0.6 else f"{kind}{draw.randrange(120)}" for _ in range(count)]
        for kind in ("d", "l", "p")
    ]
    return ids, held_out, columns


def test_components_follow_chains_of_shared_keys() -> None:
    labels = splits.components(5, ["a", "a", None, None, None], [None, "b", "b", None, "c"])
    assert len({*labels[:3]}) == 1
    assert len({labels[0], labels[3], labels[4]}) == 3


def test_no_key_is_shared_between_parts() -> None:
    for seed in range(5):
        ids, held_out, columns = table(seed)
        lost = splits.leaks(ids, held_out, *columns)
        assert not any(held_out[item] for item in lost)
        labels = splits.components(len(ids), *columns)
        parts = splits.assign(ids, held_out, labels, 0.3, seed)
        kept = [item for item in range(len(ids)) if item not in lost]
        assert {parts[item] for item in kept} == {"train", "validation", "test"}
        for column in columns:
            parts_of_key: dict[str, set[str]] = {}
            for item in kept:
                if column[item] is not None:
                    parts_of_key.setdefault(column[item], set()).add(parts[item])
            assert all(len(names) == 1 for names in parts_of_key.values())


def test_the_leak_guard_removes_only_what_is_linked_to_a_test_image() -> None:
    ids = ["t", "copy", "same lesion as copy", "free"]
    held_out, duplicate = [True, False, False, False], ["d", "d", None, None]
    lesion, patient = [None, "l", "l", "m"], [None] * 4
    leaked = splits.leaks(ids, held_out, duplicate, lesion, patient)
    problems = splits.leak_problems(leaked)
    assert sorted(problems) == [1, 2]
    assert problems[1].reason == "it shares its duplicate group with test image t"
    assert problems[2].reason == "it is tied through lesions or patients to test image t"
    assert splits.leak_rows(ids, ["test", "validation", "train", "train"], leaked) == [
        {"image_id": "copy", "split": "validation", "test_image": "t", "tie": "duplicate group"},
        {"image_id": "same lesion as copy", "split": "train", "test_image": "t", "tie": "chain"},
    ]
    listed = splits.leaks(ids, held_out, duplicate, lesion, patient, ["p", "p", None, None])
    assert listed[1] == splits.Leak("published list", "t")


def test_new_images_do_not_move_old_ones() -> None:
    ids, _, columns = table(3, 300)
    free = [False] * 300
    before = splits.assign(ids, free, splits.components(300, *columns), 0.2, 7)
    longer = [*ids, *(f"other/{n}" for n in range(50))]
    padded = [[*column, *[None] * 50] for column in columns]
    after = splits.assign(longer, [False] * 350, splits.components(350, *padded), 0.2, 7)
    assert after[:300] == before
    assert splits.assign(ids, free, splits.components(300, *columns), 0.2, 8) != before


def test_the_validation_share_is_the_fraction_asked_for() -> None:
    ids = [f"s/{n}" for n in range(20_000)]
    parts = splits.assign(ids, [False] * len(ids), np.arange(len(ids)), 0.2, 0)
    assert abs(parts.count("validation") / len(ids) - 0.2) < 4 * (0.2 * 0.8 / len(ids)) ** 0.5


def test_one_copy_stays_and_contradicting_copies_all_go() -> None:
    ids = ["a", "b", "c", "d", "e", "f"]
    groups = ["g", "g", "g", "h", "h", None]
    labels = ["benign", "benign", "benign", "benign", "malignant", "malignant"]
    problems = splits.redundant(ids, groups, labels, [128, 256, 256, 500, 500, 128])
    assert {item: problem.rule for item, problem in problems.items()} == {
        0: "duplicate",
        2: "duplicate",
        3: "label-conflict",
        4: "label-conflict",
    }
    assert "as b, which is kept" in problems[0].reason


def test_group_names_are_the_smallest_id() -> None:
    assert splits.groups(["c", "b", "a", "d"], np.array([[0, 1], [1, 2]])) == ["a", "a", "a", None]
    assert splits.groups(["x"], np.empty((0, 2))) == [None]
