"""A team's own images, by folder names and by CSV file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from layouts import kaggle, touch
from pydantic import ValidationError

from dermaflux.corpus import ingest
from dermaflux.corpus.shared_folders import once
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
    with pytest.raises(InputError, match="known datasets are .*isic2018, clinic"):
        discover(tmp_path, ["other"], [OwnDataset(name="clinic", folder="kaggle2")])
    with pytest.raises(ValidationError, match="only one of csv and columns"):
        OwnDataset(name="clinic", folder="ours", csv="table.csv")
    for path in ("../elsewhere", "hospital/2019", "C:\\lesions", "..", "/"):
        with pytest.raises(ValidationError, match="is no name of a folder directly in the data"):
            OwnDataset(name="clinic", folder=path)
    assert OwnDataset(name="clinic", folder="./ours/").folder == "ours"
    (tmp_path / "Hospital").mkdir()
    with pytest.raises(InputError, match="correct the name .folders there: 'Hospital', 'kaggle2'"):
        discover(tmp_path, [], [OwnDataset(name="clinic", folder="hospital")])
    with pytest.raises(InputError, match="'Kaggle-2', which may mean 'kaggle2'; known"):
        discover(tmp_path, ["Kaggle-2"])


DERM7PT = {"csv": "meta.csv", "labels": {"nevus": "benign", "melanoma": "malignant"}}


def columns(image: str, **others: str) -> dict[str, str]:
    return {"image": image, "label": "dx", **others}


def test_two_image_columns_of_one_csv_file_give_each_image_once(tmp_path: Path) -> None:
    """The layout of Derm7pt: a dermoscopic and a clinical photograph of each case."""
    ours = tmp_path / "ours"
    touch(ours, "d1.jpg", "d2.jpg", "c1.jpg", "c2.jpg", "both.jpg", "neither.jpg")
    (ours / "meta.csv").write_text(
        "derm,clinic,dx,case\nd1,c1,nevus,A\nd2,c2,melanoma,B\nboth,both,nevus,C\n"
    )
    own = [
        OwnDataset.model_validate(
            {"name": name, "folder": "ours", "columns": columns(name, lesion_id="case"), **DERM7PT}
        )
        for name in ("derm", "clinic")
    ]
    datasets, _ = discover(tmp_path, [], own)
    items = once(item for dataset in datasets for item in ingest.read(dataset, tmp_path))
    found = {
        item.image_id: (problem.rule if (problem := item.record.facts.problem) else None)
        for item in items
    }
    assert found == {
        "derm/d1": None,
        "derm/d2": None,
        "clinic/c1": None,
        "clinic/c2": None,
        "derm/both": None,
        "clinic/both": "repeated-file",
        "derm/neither": "no-row",
    }
    lesions = {item.image_id: item.record.facts.lesion_id for item in items}
    assert lesions["derm/d1"] == lesions["clinic/c1"] == "derm:A"
    assert lesions["derm/d2"] == lesions["clinic/c2"] == "derm:B"


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (
            {"csv": "a.csv", "columns": columns("file")},
            {"csv": "./a.csv", "columns": columns("file", patient_id="p")},
            "by the column 'file' of 'a.csv', so every image would be read twice",
        ),
        ({}, {}, "without csv 'two' reads every image"),
        ({"csv": "a.csv", "columns": columns("file")}, {}, "without csv 'two' reads every image"),
        ({}, {"csv": "a.csv", "columns": columns("file")}, "without csv 'one' reads every image"),
        ({"name": "two"}, {"folder": "theirs"}, "two entries of ingest.own are called 'two'"),
    ],
)
def test_two_entries_that_would_read_the_same_images_are_refused(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], problem: str
) -> None:
    touch(tmp_path, "ours/benign/1.jpg", "theirs/benign/2.jpg")
    own = [
        OwnDataset.model_validate({"name": "one", "folder": "ours", **first}),
        OwnDataset.model_validate({"name": "two", "folder": "ours", **second}),
    ]
    with pytest.raises(InputError, match=re.escape(problem)):
        discover(tmp_path, [], own)


def test_folders_that_no_adapter_reads_lead_to_the_parameter_that_does(tmp_path: Path) -> None:
    touch(tmp_path, "hospital/benign/1.jpg")
    with pytest.raises(InputError, match=r"name your own images in ingest\.own .*'hospital'"):
        discover(tmp_path, [])
