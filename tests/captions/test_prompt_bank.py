from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest

from dermaflux.captions.text.prompt_bank import (
    Prompt,
    from_captions,
    from_labels,
    held_out,
    label_only,
    unconditional,
)
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
        unseen = {prompt.text for prompt in from_captions(rows, "held_out").prompts[label]}
        assert unseen
        assert unseen.isdisjoint(trained["caption"])
        assert all(text.startswith(label) for text in unseen)
        used = from_captions(rows, "captions").prompts[label]
        assert unseen.isdisjoint(prompt.text for prompt in used)
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
    prompts = [bank.draw("benign", 5, index) for index in range(200)]
    assert prompts == [reversed_bank.draw("benign", 5, index) for index in range(200)]
    assert prompts != [bank.draw("benign", 6, index) for index in range(200)]
    assert len(set(prompts)) > 40
    assert max(Counter(prompts).values()) < 12
    for prompt in prompts:
        number = int(prompt.text.split()[-1])
        assert prompt.diagnosis == (f"kind {number}" if number > 1 else None)
    sentence = "This is an image containing a malignant lesion."
    assert label_only().draw("malignant", 0, 7) == Prompt(sentence, "malignant")


def test_a_diagnosis_has_the_prompts_and_the_labels_of_its_images():
    rows = _rows(0.0)
    rows["diagnosis"] = ["nevus" if n % 4 else "melanoma" for n in range(400)]  # nevus: both labels
    rows.loc[rows.index % 40 == 2, "diagnosis"] = None
    usable = rows[rows["flags"].isna()]
    truth = set(usable[["caption", "label", "diagnosis"]].itertuples(index=False, name=None))
    bank = from_captions(rows, "captions", "diagnosis", ["melanoma", "nevus"])
    drawn = [bank.draw(name, 3, n) for name in ("melanoma", "nevus") for n in range(900)]
    assert {tuple(prompt[:3]) for prompt in drawn} <= truth
    nevi = usable[usable["diagnosis"] == "nevus"]
    malignant = sum(p.label == "malignant" for p in drawn[900:]) / 900
    assert abs(malignant - (nevi["label"] == "malignant").mean()) < 0.06
    assert {p.diagnosis for p in drawn[900:]} == {"nevus"}
    # Without captions: the sentence of the label, which names the diagnosis where a model reads it.
    plain, named = (from_labels(rows, name_diagnosis=name) for name in (False, True))
    known = rows[rows["diagnosis"].notna()]
    assert {n: len(p) for n, p in plain.prompts.items()} == dict(Counter(known["diagnosis"]))
    assert named.draw("melanoma", 0, 1).text.endswith("a benign lesion, melanoma.")
    prompt = plain.draw("nevus", 0, 1)
    assert prompt.text == f"This is an image containing a {prompt.label} lesion."
    assert unconditional().draw("indeterminate", 0, 1) == Prompt("", "indeterminate")


def test_an_empty_bank_names_its_class_and_the_way_out():
    rows = _rows(0.0)
    with pytest.raises(InputError, match=r"no benign.*'held_out'; raise caption.held_out_fraction"):
        from_captions(rows, "held_out")
    with pytest.raises(InputError, match="no malignant.*set synthesize.prompt_source to label"):
        from_captions(rows[rows["label"] == "benign"], "captions")
