"""What is known without a look at the lesion: closed forms of its AUC."""

from __future__ import annotations

import numpy as np
import pytest

from dermaflux.metrics import shortcuts


def images(counts: dict[str, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Categories and labels of so many benign and malignant images."""
    names = [name for name, sizes in counts.items() for size in sizes for _ in range(size)]
    labels = [label for sizes in counts.values() for label in (0, 1) for _ in range(sizes[label])]
    return np.array(names, object), np.array(labels)


def test_the_published_draw_by_tiles_alone() -> None:
    names, labels = images({"tile": (1050, 20), "photograph": (200, 1230)})
    # Two categories: the ROC curve has one corner, at these rates.
    expected = (1 + 1230 / 1250 - 200 / 1250) / 2
    assert shortcuts.composition(names, labels, 2) == pytest.approx(expected, abs=1e-12)


def test_learned_shares_order_new_images_and_unseen_categories_have_the_prior() -> None:
    known = images({"a": (9, 1), "b": (5, 5), "c": (0, 1), "d": (1, 8)})
    asked = np.array(["a", "b", "c", "d", "never"], object)
    shares = shortcuts.category_scores(*known, asked, 2)[:, 1]
    prior = 15 / 30
    assert shares == pytest.approx([1.5 / 11, 5.5 / 11, 1.5 / 2, 8.5 / 10, prior])
    assert shares[1] == shares[4]
    names, labels = images({"a": (1, 0), "never": (0, 1), "d": (1, 1)})
    # Of 2 x 2 pairs (malignant, benign): never > a, never < d, d > a, d = d.
    assert shortcuts.auc(labels, shortcuts.category_scores(*known, names, 2)) == 2.5 / 4


def test_equal_numbers_of_both_classes_in_each_category_tell_nothing() -> None:
    sizes = np.random.default_rng(0).integers(1, 300, 20)
    names, labels = images({f"source {i}": (int(n), int(n)) for i, n in enumerate(sizes)})
    assert shortcuts.composition(names, labels, 2) == 0.5


def test_facts_of_a_file_are_learned_and_unknown_ones_tell_nothing() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    facts = generator.normal(size=(200, 4))
    shifted = facts + [[0, 2, 0, 0]] * labels[:, None]
    shifted[::7, 1] = np.nan
    shifted[:, 3] = np.nan
    scores = shortcuts.file_scores(shifted[:100], labels[:100], shifted[100:], 2)
    # Means two standard deviations apart: 0.921; a seventh of the images has no such fact.
    assert 0.8 < shortcuts.auc(labels[100:], scores) < 0.95
    unknown = np.full((100, 4), np.nan)
    assert (
        shortcuts.auc(labels[100:], shortcuts.file_scores(unknown, labels[:100], unknown, 2)) == 0.5
    )
