"""A team's own images, by folder names and by CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layouts import kaggle, touch
from pydantic import ValidationError

from dermaflux.errors import InputError
from dermaflux.params import OwnDataset
from dermaflux.sources.adapter import Record
from dermaflux.sources.discovery import discover


def read(data: Path, **entry: Any) -> list[Record]:
    own = OwnDataset.model_validate({"name": "clinic", "folder": "ours", **entry})
    (dataset,) = discover(data, ["clinic"], [own])[0]
    return list(dataset.source.read(dataset.root))


def test_folder_tree_without_a_csv_file(tmp_path: Path) -> None:
    # The file name says malignant, as Kaggle 1's do, and must not count.
    touch(tmp_path / "ours", "a/Benign/malignant_1.jpg", "Test/malignant/malignant_1.jpg", "x.jpg")
    records = {r.original_id: r for r in read(tmp_path)}
    assert {name: (r.split, r.facts.label) for name, r in records.items()} == {
        "Test/malignant/malignant_1": ("test", "malignant"),
        "a/Benign/malignant_1": ("train", "benign"),
        "x": ("train", None),
    }


COLUMNS = {
    "image": "Datei",
    "label": "Befund",
    "patient_id": "Patient",
    "lesion_id": "lesion",
    "skin_tone": "type",
    "split": "part",
    "diagnosis": "dx",
    "licence": "rights",
}


def test_csv_file_with_named_columns(tmp_path: Path) -> None:
    touch(tmp_path / "ours", "one.JPG", "deep/two.png", "a/same.jpg", "b/same.jpg", "extra.jpg")
    (tmp_path / "ours/table.csv").write_text(
        "Datei,Befund,Patient,lesion,type,part,dx,rights\n"
        "one.jpg,Gutartig,7,IL_1234567,2,,Melanocytic_Nevi,CC BY 4.0\n"
        "two,malignant,7,L1,IV,Test,melanoma\n"
        "a\\same.jpg,malignant,8,,,,\n"
        "./b/same.jpg,gutartig,9,,,train,\n"
        "gone.jpg,benign,,,,,\n"
        "blank.jpg,,,,,,\n"
        "odd.jpg,weird,,,,,\n",
        encoding="utf-8",
    )
    touch(tmp_path / "ours", "blank.jpg", "odd.jpg")
    records = read(tmp_path, csv="table.csv", columns=COLUMNS, labels={"gutartig": "benign"})
    by_id = {r.original_id: r for r in records}
    first, second = by_id["one"].facts, by_id["two"].facts
    assert (first.label, first.skin_tone, first.diagnosis) == ("benign", "II", "nevus")
    assert (first.patient_id, first.lesion_id) == ("clinic:7", "IL_1234567")
    assert (first.licence, second.licence) == ("CC-BY", None)
    assert (second.lesion_id, by_id["two"].split, by_id["one"].split) == (
        "clinic:L1",
        "test",
        "train",
    )
    assert [by_id[n].facts.label for n in ("a/same", "b/same")] == ["malignant", "benign"]
    rules = {name: r.facts.problem.rule for name, r in by_id.items() if r.facts.problem}
    assert rules == {
        "extra": "no-row",
        "gone": "no-image",
        "blank": "no-label",
        "odd": "bad-value",
    }
    assert len(records) == 8


def test_own_folder_is_not_taken_for_a_published_layout(tmp_path: Path) -> None:
    kaggle(tmp_path / "ours", 1, True, 0)  # looks like Kaggle 2
    own = OwnDataset(name="clinic", folder="ours", licence="CC-BY", scale=128)
    datasets, unread = discover(tmp_path, [], [own])
    assert [d.source.name for d in datasets] == ["clinic"]
    assert unread == []
    assert (datasets[0].source.licence, datasets[0].source.published_scale) == ("CC-BY", 128)


def test_mistakes_in_the_parameters_are_one_sentence(tmp_path: Path) -> None:
    kaggle(tmp_path / "kaggle2", 1, True, 0)
    with pytest.raises(InputError, match="ours', which does not exist; copy"):
        discover(tmp_path, [], [OwnDataset(name="clinic", folder="ours")])
    with pytest.raises(InputError, match="'kaggle2' has the name of a published dataset"):
        discover(tmp_path, [], [OwnDataset(name="kaggle2", folder="kaggle2")])
    with pytest.raises(InputError, match="known datasets are .*isic2024, clinic"):
        discover(tmp_path, ["other"], [OwnDataset(name="clinic", folder="kaggle2")])
    with pytest.raises(ValidationError, match="only one of csv and columns"):
        OwnDataset(name="clinic", folder="ours", csv="table.csv")
    with pytest.raises(ValidationError, match="pattern"):
        OwnDataset(name="clinic", folder="../elsewhere")
