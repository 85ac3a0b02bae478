"""A wanted distribution of prompts: exact counts, tone apart from class, and what is refused."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
from drawn_selector import Noise
from generator_cases import CASES, POOL

from dermaflux.captions.rows import SCHEMA
from dermaflux.captions.text.prompt_bank import Prompt, PromptBank, label_only
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.generators import registry, synthesize
from dermaflux.generators.pool import plan, wanted
from dermaflux.generators.protocol import Models
from dermaflux.params.generators import SynthesizeShared
from dermaflux.tracking.runs import Silent

TONES = ("I", "II", "III-IV", "V-VI")
DIAGNOSES = {"benign": ("nevus", "lentigo"), "malignant": ("melanoma", "carcinoma")}
BANK = PromptBank({
    label: tuple(
        Prompt(f"{label} {tone} {name} {number}", label, name, tone)
        for tone, name, number in itertools.product(TONES, names, range(2))
    )
    for label, names in DIAGNOSES.items()
})  # fmt: skip
HALVES = {"benign": 0.5, "malignant": 0.5}


def planned(shares: dict[str, float], images: int, candidates: int = 1, **asked: dict[str, float]):
    section = SimpleNamespace(wanted=asked, images=images, prompt_source="captions")
    target, bank = wanted.target(section, BANK, shares) or (None, BANK)
    return plan.plan(images * candidates, bank, shares, 128, 0, target)


def test_tones_have_their_shares_within_each_class_exactly() -> None:
    images = planned(HALVES, 41, skin_tone={"I-II": 0.5, "III-IV": 0.2, "V-VI": 0.3})
    counted = Counter((image.condition.label, image.skin_tone) for image in images)
    # 21 benign: 10.5, 4.2 and 6.3; 20 malignant: 10, 4 and 6.
    assert counted == {
        ("benign", "I-II"): 11, ("benign", "III-IV"): 4, ("benign", "V-VI"): 6,
        ("malignant", "I-II"): 10, ("malignant", "III-IV"): 4, ("malignant", "V-VI"): 6,
    }  # fmt: skip
    for image in images:  # the prompt describes an image of that class and tone
        label, tone = image.condition.prompt.split()[:2]
        assert label == image.condition.label
        assert tone in {"I-II": ("I", "II")}.get(image.skin_tone, (image.skin_tone,))
    half = Counter(image.skin_tone for image in images[:20])
    assert abs(half["I-II"] - 10) <= 2  # any beginning of the pool is near


def test_classes_share_a_remainder_and_candidates_repeat_the_pool() -> None:
    images = planned(HALVES, 10, 3, skin_tone={"I-II": 0.5, "V-VI": 0.5})
    first = Counter(image.skin_tone for image in images[:10])
    assert first == {"I-II": 5, "V-VI": 5}  # 2.5 in each class
    assert Counter(image.cell for image in images) == {
        cell: 3 * count for cell, count in Counter(image.cell for image in images[:10]).items()
    }
    assert len({image.condition.seed for image in images}) == 30


@pytest.mark.parametrize("total", [1, 7, 30])
@pytest.mark.parametrize("shares", [(0.4, 0.35, 0.25), (1 / 3, 1 / 3, 1 / 3), (0.98, 0.01, 0.01)])
def test_counts_are_hamiltons(total: int, shares: tuple[float, ...]) -> None:
    """Of all counts with that total, those nearest to the quotas."""
    found = wanted.counts(total, dict(zip("abc", shares, strict=True)), {})
    quotas = [total * share for share in shares]

    def error(counts: tuple[int, ...]) -> float:
        return sum((count - quota) ** 2 for count, quota in zip(counts, quotas, strict=True))

    splits = [c for c in itertools.product(range(total + 1), repeat=3) if sum(c) == total]
    assert error(tuple(found.values())) == pytest.approx(min(map(error, splits)))
    order = wanted.spread(found)
    assert Counter(order) == Counter({name: count for name, count in found.items() if count})


def test_diagnoses_have_their_shares_of_the_pool() -> None:
    asked = {"nevus": 0.3, "melanoma": 0.5, "carcinoma": 0.2}
    images = planned({"benign": 0.3, "malignant": 0.7}, 100, diagnosis=asked)
    assert Counter(image.condition.diagnosis for image in images) == {
        "nevus": 30, "melanoma": 50, "carcinoma": 20,
    }  # fmt: skip
    assert all(image.skin_tone is None for image in images)


def test_a_part_of_the_name_of_a_diagnosis_is_another_diagnosis() -> None:
    assert not wanted.covers("non-neoplastic", "neoplastic")
    assert wanted.covers("V-VI", "VI")
    assert not wanted.covers("I-II", "III-IV")


def test_without_a_wanted_distribution_the_plan_is_the_former_one() -> None:
    images = plan.plan(20, BANK, HALVES, 128, 7)
    for index, image in enumerate(images):
        prompt = BANK.draw(("benign", "malignant")[index % 2], 7, index)
        assert (image.condition.prompt, image.skin_tone) == (prompt.text, None)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"skin_tone": {"I-II": 0.5, "VII": 0.5}}, "the skin tone 'VII' but no prompt describes"),
        ({"diagnosis": {"nevi": 0.5, "melanoma": 0.5}}, "write nevus, or leave it out"),
        ({"diagnosis": {"nevus": 0.3, "melanoma": 0.7}}, "{benign: 0.3, malignant: 0.7}"),
    ],
)
def test_what_the_prompts_cannot_give_is_refused(asked: dict, said: str) -> None:
    with pytest.raises(InputError) as error:
        planned(HALVES, 20, **asked)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_without_the_tone_and_prompts_of_no_image_are_refused() -> None:
    section = SimpleNamespace(
        wanted={"skin_tone": {"V-VI": 1.0}}, images=20, prompt_source="captions"
    )
    light = tuple(p for p in BANK.prompts["malignant"] if p.skin_tone == "I")
    with pytest.raises(InputError, match="no prompt of the class malignant"):
        wanted.target(section, PromptBank({**BANK.prompts, "malignant": light}), HALVES)
    with pytest.raises(InputError, match="say of no image which it has"):
        wanted.target(section, label_only(), HALVES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wanted": {"skin_tone": {"I-II": 0.5, "V-VI": 0.4}}}, "add up to 0.9"),
        ({"wanted": {"colour": {"red": 1.0}}}, "is not one distribution"),
        ({"wanted": {"skin_tone": "dark"}}, "gives no shares"),
        ({"wanted": {"skin_tone": {"I-IV": 1.0}}}, "'I-IV' is not one of I, II, III"),
        ({"wanted": {"skin_tone": {"I-II": 1.0}}, "conditions": "none"}, "without a prompt"),
        ({"wanted": {"diagnosis": {"nevus": 1.0}}, "conditions": "diagnosis"}, "proportions says"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SynthesizeShared(**changes)


def test_the_rows_of_a_pool_say_what_was_wanted(tmp_path, monkeypatch) -> None:
    """Through the stage, with a generator that knows nothing of it."""
    monkeypatch.chdir(tmp_path)  # whose checkpoints it uses
    corpus = [
        {"image_id": f"s/{n:03d}", "split": "train", "label": CLASSES[n % 2], "skin_tone": tone}
        for n, tone in enumerate([tone for tone in TONES for _ in range(4)])
    ]
    table.write(corpus, tmp_path / "corpus", 64)
    captions = [
        {"image_id": row["image_id"], "caption": f"of {row['skin_tone']}, {row['label']}"}
        for row in corpus
    ]
    (tmp_path / "captions").mkdir()
    table.write_shard(captions, tmp_path / "captions" / "captions-00000-of-00001.parquet", SCHEMA)
    generator = Noise()
    generator.needs = frozenset({"captions"})
    monkeypatch.setattr(registry, "generator", lambda name: generator)
    asked = {"skin_tone": {"I-II": 0.25, "V-VI": 0.75}}
    section = POOL.model_copy(
        update={"flux_lora": CASES["flux_lora"].sampling(tmp_path), "wanted": asked, "images": 20}
    )
    folders = (tmp_path / "corpus", tmp_path / "captions", Models(tmp_path, tmp_path))
    synthesize.synthesize("flux_lora", section, 7, *folders, tmp_path / "pool", Silent())
    rows = table.metadata(tmp_path / "pool")
    # 10 of each class: 2.5 and 7.5, whose remainder goes to one tone in each.
    assert Counter(zip(rows["label"], rows["skin_tone"], strict=True)) == {
        ("benign", "I-II"): 3, ("benign", "V-VI"): 7,
        ("malignant", "I-II"): 2, ("malignant", "V-VI"): 8,
    }  # fmt: skip
    assert set(rows["skin_tone_origin"]) == {"wanted"}
    for row in rows.itertuples():
        assert row.prompt.startswith(("of I,", "of II,") if row.skin_tone == "I-II" else "of V-VI,")
        assert row.prompt.endswith(row.label)
