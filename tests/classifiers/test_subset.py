"""The draw of training images: balanced, nested, and blind to the order of rows."""

from __future__ import annotations

import pandas as pd
import pytest

from dermaflux.classifiers.data import subset
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError


def pool(benign: int, malignant: int, prefix: str = "isic2019") -> pd.DataFrame:
    ids = [f"{prefix}/{number:05d}" for number in range(benign + malignant)]
    return pd.DataFrame({"image_id": ids, "label": ["benign"] * benign + ["malignant"] * malignant})


def draw(rows: pd.DataFrame, count: int, seed: int) -> list[str]:
    return subset.draw(rows, subset.balanced(count), seed)


def test_a_larger_sample_contains_the_smaller_and_each_is_balanced() -> None:
    rows = pool(400, 90)
    small, large = (draw(rows, count, seed=3) for count in (60, 180))
    assert set(small) < set(large)
    label_of = rows.set_index("image_id")["label"]
    assert [list(label_of[ids]).count("malignant") for ids in (small, large)] == [30, 90]


def test_row_order_does_not_matter_and_the_seed_does() -> None:
    rows = pool(200, 200)
    drawn = draw(rows, 100, seed=0)
    assert draw(rows.sample(frac=1, random_state=1), 100, seed=0) == drawn
    assert set(draw(rows, 100, seed=1)) != set(drawn)


def test_new_data_displaces_few_images_and_moves_none() -> None:
    before = draw(pool(200, 200), 100, seed=0)
    more = pd.concat([pool(200, 200), pool(20, 20, "hiba")])
    after = draw(more, 100, seed=0)
    common = [image_id for image_id in after if image_id in set(before)]
    assert common == [image_id for image_id in before if image_id in set(common)]
    assert len(common) > 80


def test_rejected_images_never_train() -> None:
    rows = pool(50, 50, "synthetic")
    rejected = set(subset.draw(rows, subset.balanced(20), seed=0))
    assert rejected.isdisjoint(subset.draw_synthetic(rows, rejected, subset.balanced(60), seed=0))


def check_real(benign: int, malignant: int) -> None:
    subset.check_real(subset.counts(pool(benign, malignant), CLASSES), 100)


@pytest.mark.parametrize(
    ("call", "numbers"),
    [
        (lambda: check_real(100, 40), ("100", "50", "40", "80")),
        (lambda: check_real(100, 0), ("0 malignant", "50")),
        (
            lambda: subset.draw_synthetic(
                pool(20, 20, "s"), ["s/00000", "s/00001"], subset.balanced(40), 0
            ),
            ("needs 20", "18", "rejected 2"),
        ),
    ],
)
def test_a_class_that_is_too_small_is_reported_with_both_numbers(call, numbers) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert all(number in str(error.value) for number in numbers)
