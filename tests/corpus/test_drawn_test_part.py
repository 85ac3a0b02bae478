"""The test part that is drawn where none is published, and what the stage says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoded_items import decoded_item
from ingested import quarantined, settings
from layouts import kaggle, random_image, save

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.corpus import ingest, ingest_report
from dermaflux.corpus.splitting import policies
from dermaflux.corpus.splitting.selection import Selection, select
from dermaflux.errors import InputError

NO_PAIRS = np.empty((0, 2), dtype=np.int64)


def corpus(seed: int, count: int, **facts: Any) -> list[Any]:
    random = np.random.default_rng(seed)
    return [
        decoded_item(
            f"ddi/{number:05d}",
            label=CLASSES[int(random.random() < 0.3)],
            patient_id=f"p{random.integers(count // 3)}" if random.random() < 0.6 else None,
            lesion_id=f"l{random.integers(count // 2)}" if random.random() < 0.6 else None,
            **facts,
        )
        for number in range(count)
    ]


def drawn(images: list[Any], name: policies.Name = "clean", **changes: Any) -> Selection:
    edges = changes.pop("edges", NO_PAIRS)
    policy = policies.policy(name, settings(**changes).ingest)
    fraction = changes.get("test_fraction", 0.2)
    return select(images, edges, NO_PAIRS, policy, 0.2, 3, fraction)


@pytest.mark.parametrize("name", policies.NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_shared_by_two_of_three_parts(name: policies.Name, seed: int) -> None:
    images = corpus(seed, 300)
    edges = np.random.default_rng(seed).integers(0, 300, (60, 2))
    selection = drawn(images, name, edges=edges)
    kept = set(selection.kept())
    parts = {selection.splits[index] for index in kept}
    assert parts == set(table.SPLITS)
    facts = [image.item.record.facts for image in images]
    keys = [("patient", fact.patient_id) for fact in facts]
    keys += [("lesion", fact.lesion_id) for fact in facts]
    keys += [("copy", group) for group in selection.groups]
    for kind, key in set(keys):
        together = {
            selection.splits[index % 300]
            for index, pair in enumerate(keys)
            if pair == (kind, key) and key is not None and index % 300 in kept
        }
        assert len(together) <= 1, (kind, key)


def test_the_share_is_the_fraction_asked_for_in_each_class() -> None:
    images = [
        decoded_item(f"ddi/{number:05d}", label=CLASSES[number % 5 == 0]) for number in range(8000)
    ]
    selection = drawn(images, test_fraction=0.25)
    for label, count in (("benign", 6400), ("malignant", 1600)):
        found = sum(
            part == "test" and own == label
            for part, own in zip(selection.splits, selection.labels, strict=True)
        )
        assert abs(found / count - 0.25) < 4 * (0.25 * 0.75 / count) ** 0.5


@pytest.mark.parametrize("rare", [3, 4, 5, 8])
@pytest.mark.parametrize("seed", range(20))
def test_three_patients_of_a_class_are_enough_for_three_parts(rare: int, seed: int) -> None:
    images = [
        decoded_item(f"ddi/{seed}-{number}", label=label, patient_id=f"{label}{number % groups}")
        for label, groups in (("benign", 30), ("malignant", rare))
        for number in range(30)
    ]
    selection = drawn(images)
    found = set(zip(selection.splits, selection.labels, strict=True))
    assert found == {(part, label) for part in table.SPLITS for label in CLASSES}


@pytest.mark.parametrize(
    ("name", "published", "expected"),
    [("clean", "isic2019", False), ("as_published", "isic2019", False),
     ("clean", "derm12345", False), ("as_published", "derm12345", True)],
)  # fmt: skip
def test_one_published_test_image_is_enough_for_nothing_to_be_drawn(
    name: policies.Name, published: str, expected: bool
) -> None:
    """The paper trains on the test part of DERM12345, so under its policy it is none."""
    images = [*corpus(1, 60), decoded_item(f"{published}/x", split="test")]
    selection = drawn(images, name)
    assert selection.unpublished_test is expected
    assert (selection.splits[60] == "test") or expected
    tests = sum(part == "test" for part in selection.splits)
    assert tests > 1 if expected else tests == 1


def test_a_published_test_part_that_is_left_out_is_none() -> None:
    images = [*corpus(1, 60), decoded_item("ddi/small", width=100, split="test")]
    selection = drawn(images)
    assert selection.unpublished_test
    assert "test" in selection.splits


@pytest.mark.parametrize("name", policies.NAMES)
@pytest.mark.parametrize("by", ["group", "image"])
def test_a_test_part_can_be_drawn_from_the_training_part_alone(
    name: policies.Name, by: str
) -> None:
    """ISIC 2019's 8:2 of VAP-Diffusion: its official test images then stand in no split."""
    training = [
        decoded_item(f"isic2019/{n:05d}", label=CLASSES[n % 5 == 0], lesion_id=f"l{n // 4}")
        for n in range(2000)
    ]
    official = [decoded_item(f"isic2019/t{n}", split="test", lesion_id=f"l{n}") for n in range(50)]
    images = [*training, *official]
    selection = drawn(images, name, test_by=by)
    left = {images[i].item.image_id: problem.rule for i, (_, problem) in selection.lost.items()}
    assert left == {item.item.image_id: "published-test" for item in official}
    parts = selection.splits[:2000]
    share = sum(part == "test" for part in parts) / 2000
    units = 500 if by == "group" else 2000
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / units) ** 0.5
    together = [{*parts[n : n + 4]} for n in range(0, 2000, 4)]
    mixed = sum("test" in found and len(found) > 1 for found in together)
    # Of four images drawn one by one, 1 - 0.8^4 - 0.2^4 of the lesions lie on both sides.
    assert mixed == 0 if by == "group" else abs(mixed / 500 - 0.589) < 0.1
    sentence = ingest_report.test_drawn(images, selection, 0.2, 3, by)["sentence"]  # type: ignore[index, arg-type]
    assert f"ingest.test_by {by}" in sentence
    assert ("image by image" in sentence) == (by == "image")


def test_a_drawn_test_part_needs_its_size() -> None:
    with pytest.raises(InputError, match="test_by 'image' draws .* test_fraction is null; set it"):
        settings(test_by="image", test_fraction=None)


@pytest.fixture
def clinic(workspace: Path) -> Path:
    """Twelve images of each class, without a test part."""
    for number in range(24):
        label = CLASSES[number % 2]
        save(random_image(number), workspace / "clinic" / label / f"{number}.jpg")
    return workspace


OWN = {"own": [{"name": "clinic", "folder": "clinic"}]}


def test_the_last_lines_say_what_was_drawn(
    clinic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle(clinic / "kaggle2", 2, True, 900)
    save(random_image(99), clinic / "clinic/unclear/1.jpg")
    ingest.run(settings(sources=["clinic"], **OWN))
    printed = capsys.readouterr().out
    assert "clinic: 25 in, 24 kept, 1 left out (no-label 1)\n" in printed
    report = json.loads(paths.INGEST_REPORT.read_text())
    rows = table.metadata(paths.CORPUS)
    test = rows[rows["split"] == "test"]
    told = report["test_drawn"]
    assert told["images"] == len(test) > 1
    assert [told[label] for label in CLASSES] == [
        int((test["label"] == label).sum()) for label in CLASSES
    ]
    assert (told["fraction"], told["seed"], told["sources"]) == (0.2, 0, {"clinic": len(test)})
    assert "the test split was drawn here by patient, lesion and duplicate group" in printed
    assert f"seed 0): {len(test)} of 24 images ({len(test) / 24:.1%})" in printed
    strays = abs(len(test) / 24 / 0.2 - 1) > 0.25
    assert ("few stray from that share" in printed) == strays


def test_without_a_fraction_nothing_is_decoded(
    clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "open_cache", None)
    with pytest.raises(InputError, match=r"none of the 24 images is a test image.*columns\.split"):
        ingest.run(settings(test_fraction=None, **OWN))


@pytest.mark.parametrize("fraction", [None, 0.2])
def test_a_published_test_part_needs_no_fraction(workspace: Path, fraction: float | None) -> None:
    kaggle(workspace / "kaggle2", 3, True, 0)
    ingest.run(settings(test_fraction=fraction))
    assert json.loads(paths.INGEST_REPORT.read_text())["test_drawn"] is None


def test_a_dataset_of_which_nothing_is_kept_is_said_with_an_example(
    clinic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(random_image(98), clinic / "second/photo\x1b[2J.jpg")
    own = [*OWN["own"], {"name": "second", "folder": "second"}]
    ingest.run(settings(own=own))
    printed = capsys.readouterr().out
    assert "second: 1 in, 0 kept, 1 left out (no-label 1)\n" in printed
    assert "warning: nothing of second is kept, such as 'second/photo\\x1b[2J.jpg': no " in printed
    assert "\x1b" not in printed


def test_the_tables_of_losses_exist_after_a_failure(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(random_image(1), workspace / "clinic/unclear/1.jpg")
    save(random_image(2), workspace / "clinic/benign/2.jpg")
    with pytest.raises(InputError, match="1 benign and 0 malignant.*no-label 1, such as 'clinic"):
        ingest.run(settings(**OWN))
    assert {row["rule"] for row in quarantined().values()} == {"no-label"}
    assert paths.LEAKS.is_file()
    assert "clinic: 2 in, 1 usable, 1 left out (no-label 1)" in capsys.readouterr().out
