"""ISIC 2018 task 3 in the layouts of the challenge and of HAM10000, and the published counts."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from layouts import isic2019, isic2020, records, rule, touch

from dermaflux.corpus import ingest
from dermaflux.corpus.shared_folders import once
from dermaflux.params import OwnDataset
from dermaflux.sources.discovery import discover
from dermaflux.sources.published.isic2018 import CLASSES
from dermaflux.sources.registry import SOURCES

REAL = Path(__file__).parents[3] / "shared" / "real" / "metadata"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the published CSV files are not available")
TASK = "ISIC2018_Task3"
HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"
PARTS = {"Training": "train", "Validation": "validation", "Test": "test"}


def one_hot_rows(images: dict[str, str]) -> str:
    lines = [
        f"{name}," + ",".join(f"{c == code:.1f}" for c in CLASSES) for name, code in images.items()
    ]
    return "\n".join([f"image,{','.join(CLASSES)}", *lines])


def challenge(root: Path, part: str, images: dict[str, str], in_folder: bool) -> None:
    touch(root, *(f"{TASK}_{part}_Input/{name}.jpg" for name in images))
    truth = root / f"{TASK}_{part}_GroundTruth"
    if in_folder:
        truth.mkdir(exist_ok=True)
        truth = truth / truth.name
    truth.with_name(f"{truth.name}.csv").write_text(one_hot_rows(images))


@pytest.mark.parametrize("in_folder", [False, True])
def test_the_challenges_layout_has_three_parts_and_seven_classes(
    tmp_path: Path, in_folder: bool
) -> None:
    training = {f"ISIC_{n:07d}": code for n, code in enumerate(CLASSES)}
    challenge(tmp_path, "Training", training, in_folder)
    groups = [f"{name},HAM_{n // 2},histo" for n, name in enumerate(training)]
    (tmp_path / f"{TASK}_Training_LesionGroupings.csv").write_text(
        "\n".join(["image,lesion_id,diagnosis_confirm_type", *groups])
    )
    challenge(tmp_path, "Validation", {"ISIC_0034321": "NV"}, in_folder)
    challenge(tmp_path, "Test", {"ISIC_0034524": "AKIEC"}, in_folder)
    touch(tmp_path, f"{TASK}_Test_Input/ISIC_9.jpg")
    images = records(tmp_path, "isic2018")
    assert [images[name].facts.label for name in training] == [
        "malignant", "benign", "malignant", "malignant", "benign", "benign", "benign"
    ]  # fmt: skip
    assert (
        images["ISIC_0000003"].facts.diagnosis == "actinic keratosis or intraepithelial carcinoma"
    )
    assert (
        images["ISIC_0000002"].facts.lesion_id == images["ISIC_0000003"].facts.lesion_id == "HAM_1"
    )
    splits = {name: images[name].split for name in ("ISIC_0000000", "ISIC_0034321", "ISIC_0034524")}
    assert list(splits.values()) == list(PARTS.values())
    assert rule(images["ISIC_9"]) == "no-row"
    assert len(images) == 10


@pytest.mark.parametrize("metadata", ["HAM10000_metadata.csv", "HAM10000_metadata"])
def test_ham10000_as_harvard_and_kaggle_have_it(tmp_path: Path, metadata: str) -> None:
    touch(tmp_path, "HAM10000_images_part_1/a.jpg", "HAM10000_images_part_2/b.jpg")
    touch(tmp_path, "HAM10000_images_part_2/c.jpg", f"{TASK}_Test_Images/t.jpg")
    rows = "HAM_1,a,akiec,histo,40.0,male,face,x\nHAM_1,b,akiec,,,,,\nHAM_2,c,scc,,,,,\n"
    (tmp_path / metadata).write_text(f"{HEADER}\n{rows}")
    (tmp_path / f"{TASK}_Test_GroundTruth.csv").write_text(f"{HEADER}\nHAMTEST_0,t,mel,,,,,\n")
    images = records(tmp_path, "isic2018")
    assert {name: (r.split, r.facts.label, r.facts.lesion_id) for name, r in images.items()} == {
        "a": ("train", "malignant", "HAM_1"),
        "b": ("train", "malignant", "HAM_1"),
        "c": ("train", None, None),
        "t": ("test", "malignant", "HAMTEST_0"),
    }
    assert "'scc'; it must be one of mel, nv, bcc, akiec" in str(images["c"].facts.problem)


@pytest.mark.parametrize("folder", [f"{TASK}_Training_Input", "HAM10000_images_part_2"])
@pytest.mark.parametrize("table", ["challenge", "HAM10000", "both"])
def test_either_folders_are_read_with_either_table(tmp_path: Path, folder: str, table: str) -> None:
    touch(tmp_path, f"{folder}/a.jpg", f"{folder}/b.jpg")
    if table != "HAM10000":
        rows = one_hot_rows({"a": "NV", "b": "MEL"})
        (tmp_path / f"{TASK}_Training_GroundTruth.csv").write_text(rows)
        groups = "image,lesion_id\na,HAM_1\nb,HAM_2\n"
        (tmp_path / f"{TASK}_Training_LesionGroupings.csv").write_text(groups)
    if table != "challenge":
        rows = f"{HEADER}\nHAM_1,a,nv,,,,,\nHAM_2,b,mel,,,,,\n"
        (tmp_path / "HAM10000_metadata.csv").write_text(rows)
    images = records(tmp_path, "isic2018")
    assert {name: (r.facts.label, r.facts.lesion_id) for name, r in images.items()} == {
        "a": ("benign", "HAM_1"),
        "b": ("malignant", "HAM_2"),
    }


def test_a_teams_own_folder_is_its_own_whatever_it_is_called(tmp_path: Path) -> None:
    """Nor does a table that people keep beside their own images make these a published dataset."""
    ours = tmp_path / "HAM10000_images"
    touch(ours, "a.jpg")
    for table in (ours / "ours.csv", tmp_path / "HAM10000_metadata.csv"):
        table.write_text(f"{HEADER}\nHAM_1,a,nv,,,,,\n")
    own = OwnDataset.model_validate(
        {
            "name": "clinic",
            "folder": "HAM10000_images",
            "csv": "ours.csv",
            "columns": {"image": "image_id", "label": "dx"},
            "labels": {"nv": "benign"},
        }
    )
    datasets, unread = discover(tmp_path, [], [own])
    assert [dataset.source.name for dataset in datasets] == ["clinic"]
    assert unread == []
    datasets, _ = discover(tmp_path, [])  # without the entry, it is HAM10000's folder
    assert [(d.source.name, d.folders[0].name) for d in datasets] == [
        ("isic2018", "HAM10000_images")
    ]


@pytest.mark.parametrize("where", [".", "isic"])
def test_challenges_in_one_folder_take_nothing_from_each_other(tmp_path: Path, where: str) -> None:
    root = tmp_path / where
    challenge(root, "Validation", {"v": "NV", "w": "MEL"}, in_folder=False)
    isic2019(root, {"a": ("NV", "L"), "b": ("MEL", "M")}, {})
    isic2020(root, {"c": ("P", 0), "d": ("Q", 1)})
    touch(root, f"{TASK}_Test_Input/nobodys.jpg", "ISIC_2019_Training_Input/odd/nobodys.jpg")
    (root / f"{TASK}_Test_GroundTruth.csv").write_text(one_hot_rows({"t": "NV"}))
    datasets, _ = discover(tmp_path, [])
    items = once(item for dataset in datasets for item in ingest.read(dataset, tmp_path))
    assert {item.image_id: rule(item.record) for item in items} == {
        **dict.fromkeys(["isic2018/v", "isic2018/w", "isic2019/a", "isic2019/b"]),
        **dict.fromkeys(["isic2020/c", "isic2020/d"]),
        "isic2018/t": "no-image",
        "isic2018/nobodys": "no-row",
        "isic2019/ISIC_2019_Training_Input/odd/nobodys": "outside-layout",
    }


def real_rows(name: str) -> list[dict[str, str]]:
    with (REAL / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@real
def test_the_real_tables_hold_the_declared_counts_and_isic2019s_lesions(tmp_path: Path) -> None:
    for name in ("HAM10000_metadata.csv", f"{TASK}_Test_GroundTruth.csv"):
        (tmp_path / name).symlink_to(REAL / name)
    source, listed = SOURCES["isic2018"], list(SOURCES["isic2018"].read(tmp_path))
    for split in ("train", "test"):
        labels = Counter(record.facts.label for record in listed if record.split == split)
        counts = source.counts[split]
        assert labels == {"benign": counts.benign, "malignant": counts.malignant}
    diagnoses = Counter(record.facts.diagnosis for record in listed if record.split == "test")
    assert sorted(diagnoses.values()) == [35, 43, 44, 93, 171, 217, 909]
    lesions = {r.original_id: r.facts.lesion_id for r in listed if r.split == "train"}
    assert len(set(lesions.values())) == 7_470
    # The same images are in ISIC 2019 under the same lesions, so that a split keeps them together.
    other = {row["image"]: row["lesion_id"] for row in real_rows("ISIC_2019_Training_Metadata")}
    assert all(other[name] == lesion for name, lesion in lesions.items())
    # ISIC 2019 tests on the official validation and test parts; the 193 are what the latter lacks.
    tested = {r.original_id for r in listed if r.split == "test"}
    rest = [
        any(float(row[name]) for name in ("MEL", "BCC", "AK", "SCC"))
        for row in real_rows("ISIC_2019_Test_GroundTruth")
        if "ISIC_0034321" <= row["image"] <= "ISIC_0036064" and row["image"] not in tested
    ]
    counts = source.counts["validation"]
    assert (len(rest), sum(rest)) == (counts.images, counts.malignant) == (193, 44)
