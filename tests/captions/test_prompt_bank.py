from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest

from dermaflux.captions.text.prompt_bank import from_captions, held_out, label_only
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.generators.data.images import trainable


def _rows(fraction: float = 0.25) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "image_id": [f"x/{number:04d}" for number in range(400)],
            "label": [CLASSES[number % 2] for number in range(400)],
            # Every text occurs with two images.
            "caption": [f"{CLASSES[number % 2]} text {number // 4}" for number in range(400)],
            "diagnosis": [None if number < 8 else f"kind {number // 4}" for number in range(400)],
            "flags": None,
        }
    )
    rows.loc[[10, 11], "flags"] = "no border,refusal"
    rows.loc[[20, 21], "flags"] = "truncated"
    rows["held_out"] = [held_out(text, fraction) for text in rows["caption"]]
    return rows


def test_held_out_texts_are_never_trained_with_and_make_a_bank_of_their_own():
    rows = _rows()
    share = rows["held_out"].mean()
    assert 0.15 < share < 0.35
    trained = trainable(rows)
    assert len(trained) == len(rows) - rows["held_out"].sum()
    for label in CLASSES:
        unseen = set(from_captions(rows, "held_out").prompts[label])
        assert unseen
        assert unseen.isdisjoint(trained["caption"])
        assert all(text.startswith(label) for text in unseen)
        assert unseen.isdisjoint(from_captions(rows, "captions").prompts[label])
    # More is held out, never something else, when the fraction grows.
    more = _rows(0.5)["held_out"]
    assert (more | ~rows["held_out"]).all()


def test_flagged_captions_are_no_prompts_and_useless_ones_are_not_trained_with():
    rows = _rows(0.0)
    assert not rows["held_out"].any()
    bank = from_captions(rows, "captions").prompts
    assert sum(map(len, bank.values())) == len(rows) - 4
    trained = trainable(rows)
    assert trained.loc[10, "caption"] == "This is an image containing a benign lesion."
    assert trained.loc[20, "caption"] == rows.loc[20, "caption"]


def test_draws_depend_on_seed_and_index_but_not_on_the_order_of_the_corpus():
    rows = _rows()
    bank, reversed_bank = (from_captions(frame, "captions") for frame in (rows, rows.iloc[::-1]))
    texts = [bank.draw("benign", 5, index) for index in range(200)]
    assert texts == [reversed_bank.draw("benign", 5, index) for index in range(200)]
    assert texts != [bank.draw("benign", 6, index) for index in range(200)]
    assert len(set(texts)) > 40
    assert max(Counter(texts).values()) < 12
    for index, text in enumerate(texts):
        number = int(text.split()[-1])
        assert bank.diagnosis("benign", 5, index) == (f"kind {number}" if number > 1 else None)
    assert label_only().diagnosis("malignant", 0, 7) is None
    assert label_only().draw("malignant", 0, 7) == "This is an image containing a malignant lesion."


def test_an_empty_bank_names_its_class_and_the_way_out():
    rows = _rows(0.0)
    with pytest.raises(InputError, match=r"no benign.*'held_out'; raise caption.held_out_fraction"):
        from_captions(rows, "held_out")
    with pytest.raises(InputError, match="no malignant.*set synthesize.prompt_source to label"):
        from_captions(rows[rows["label"] == "benign"], "captions")
