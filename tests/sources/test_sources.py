from __future__ import annotations

from pathlib import Path

import pytest
from layouts import CLASSES, isic2019, isic2020, kaggle, one_hot, random_image, save

from dermaflux.errors import InputError
from dermaflux.sources.adapter import Facts
from dermaflux.sources.discovery import discover
from dermaflux.sources.reading.tables import read_csv
from dermaflux.sources.registry import SOURCES


def facts(root: Path, name: str) -> dict[str, Facts]:
    return {r.original_id: r.facts for r in SOURCES[name].read(root)}


def rules(root: Path, name: str) -> list[str]:
    return sorted(r.facts.problem.rule for r in SOURCES[name].read(root) if r.facts.problem)


def test_isic2019_maps_classes_lesions_and_splits(tmp_path: Path) -> None:
    train = {f"ISIC_{n:07d}": (name, f"HAM_{n}") for n, name in enumerate(CLASSES[:-1])}
    train["ISIC_0000099_downsampled"] = ("NV", "")
    isic2019(tmp_path, train, {"ISIC_0034321": "UNK", "ISIC_0034322": "MEL"})
    images = facts(tmp_path, "isic2019")
    labels = [images[f"ISIC_{n:07d}"].label for n in range(8)]
    b, m = "benign", "malignant"
    assert labels == [m, b, m, "indeterminate", b, b, b, m]
    assert images["ISIC_0000002"].diagnosis == "basal cell carcinoma"
    assert images["ISIC_0000002"].lesion_id == "HAM_2"
    assert images["ISIC_0000099_downsampled"].lesion_id is None
    assert images["ISIC_0034321"].problem is not None
    splits = {r.original_id: r.split for r in SOURCES["isic2019"].read(tmp_path)}
    assert [name for name, split in splits.items() if split == "test"] == [
        "ISIC_0034321",
        "ISIC_0034322",
    ]


def test_isic2019_rows_and_files_are_all_accounted_for(tmp_path: Path) -> None:
    isic2019(tmp_path, {f"a{n}": ("NV", "") for n in range(4)}, {})
    truth = tmp_path / "ISIC_2019_Training_GroundTruth.csv"
    rows = [
        f"ghost,{one_hot('NV')}",
        f"a1,{one_hot('NV')}",
        f"a2,{one_hot('MEL')}",
        "a5,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "a6,x,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "a7",
    ]
    # With a byte order mark, as spreadsheets write it.
    truth.write_text("\ufeff" + truth.read_text() + "\n" + "\n".join(rows), encoding="utf-8")
    for name in ("a4", "a5", "a6", "a7"):
        save(random_image(1), tmp_path / f"ISIC_2019_Training_Input/{name}.jpg")
    assert rules(tmp_path, "isic2019") == [
        *["bad-value"] * 3,  # a5, a6, a7
        "contradiction",  # a2
        "no-image",  # ghost
        "no-row",  # a4
        *["repeated-row"] * 2,  # a1, a2
    ]
    assert len(list(SOURCES["isic2019"].read(tmp_path))) == 8 + 3


def test_isic2019_training_folder_filled_from_the_archives_ham10000(tmp_path: Path) -> None:
    # Collection 212 holds 1,705 images more than HAM10000: they are ISIC 2019 test images, which
    # the training CSV does not name.
    isic2019(tmp_path, {"ISIC_0024306": ("NV", "HAM_1")}, {"ISIC_0034321": "NV"})
    save(random_image(1), tmp_path / "ISIC_2019_Training_Input/ISIC_0034321.jpg")
    assert [
        (r.original_id, r.split) for r in SOURCES["isic2019"].read(tmp_path) if not r.facts.problem
    ] == [
        ("ISIC_0024306", "train"),
        ("ISIC_0034321", "test"),
    ]


@pytest.mark.parametrize("newer", [False, True])
def test_isic2020_reads_both_generations(tmp_path: Path, newer: bool) -> None:
    isic2020(tmp_path, {"ISIC_1": ("IP_1", 0), "ISIC_2": ("IP_1", 1)})
    if newer:
        (tmp_path / "ISIC_2020_Training_GroundTruth_v2.csv").write_text(
            "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,"
            "diagnosis,benign_malignant,target\n"
            "ISIC_1,IP_1,IL_1,male,45,torso,nevus,benign,0\n"
            "ISIC_2,IP_1,IL_2,male,45,torso,melanoma,benign,1\n"
        )
    images = facts(tmp_path, "isic2020")
    assert images["ISIC_1"].lesion_id == ("IL_1" if newer else None)
    assert images["ISIC_1"].diagnosis == ("nevus" if newer else None)
    assert images["ISIC_1"].patient_id == "IP_1"
    assert rules(tmp_path, "isic2020") == (["contradiction"] if newer else [])
    assert newer or images["ISIC_2"].label == "malignant"
    (tmp_path / "ISIC_2020_Training_Duplicates.csv").write_bytes(
        b"image_name_1,image_name_2\r\nISIC_1,ISIC_2\r\n"
    )
    assert SOURCES["isic2020"].pairs(tmp_path) == [("ISIC_1", "ISIC_2")]


def test_kaggle_labels_come_from_the_folder(tmp_path: Path) -> None:
    kaggle(tmp_path / "melanoma_cancer_dataset", 2, False, 0)
    images = facts(tmp_path, "kaggle1")
    assert len(images) == 8
    assert images["test/malignant/melanoma_0"].label == "malignant"
    assert images["train/benign/melanoma_0"].label == "benign"
    kaggle(tmp_path, 2, True, 50)
    assert facts(tmp_path, "kaggle2")["train/Malignant/melanoma_1"].label == "malignant"


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("ISIC_2019_Training_GroundTruth.csv", "UNK"),
        ("ISIC_2019_Training_Metadata.csv", "lesion_id"),
        ("ISIC_2019_Test_GroundTruth.csv", "image"),
    ],
)
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, file: str, column: str) -> None:
    isic2019(tmp_path, {"a": ("NV", "L")}, {"b": "MEL"})
    path = tmp_path / file
    path.write_text(path.read_text().replace(column, "other", 1))
    with pytest.raises(InputError, match=rf"{file} lacks the column '{column}'.*other"):
        list(SOURCES["isic2019"].read(tmp_path))


def test_unreadable_csv_is_one_sentence(tmp_path: Path) -> None:
    isic2020(tmp_path, {"ISIC_1": ("IP_1", 0)})
    truth = tmp_path / "ISIC_2020_Training_GroundTruth.csv"
    truth.write_bytes(b"\xff\xfe\x00image_name")
    with pytest.raises(InputError, match="is not CSV text in UTF-8"):
        list(SOURCES["isic2020"].read(tmp_path))
    truth.unlink()
    with pytest.raises(InputError, match="GroundTruth.csv is missing; download"):
        list(SOURCES["isic2020"].read(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_csv_of_a_spreadsheet_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "some.csv"
    path.write_bytes('image,site\r\na,"café,\r\n1"\r\nb,\r\n'.encode(encoding))
    rows = read_csv(path, ("image",), ("site", "absent"))
    assert [row.values for row in rows] == [
        {"image": "a", "site": "café,\r\n1", "absent": ""},
        {"image": "b", "site": "", "absent": ""},
    ]
    assert [row.location for row in rows] == ["some.csv:3", "some.csv:4"]


def test_datasets_are_found_by_name_by_layout_and_in_the_open(tmp_path: Path) -> None:
    kaggle(tmp_path / "downloads/melanoma_cancer_dataset", 1, False, 0)
    isic2019(tmp_path, {"a": ("NV", "L")}, {})
    kaggle(tmp_path / "kaggle2", 1, True, 9)
    save(random_image(5), tmp_path / "unheard-of/images/first.JPG")
    save(random_image(5), tmp_path / "loose.png")
    (tmp_path / "empty").mkdir()
    datasets, unread = discover(tmp_path, [])
    roots = {dataset.source.name: dataset.root for dataset in datasets}
    assert roots == {
        "isic2019": tmp_path,
        "kaggle1": tmp_path / "downloads",
        "kaggle2": tmp_path / "kaggle2",
    }
    assert [(part.name, part.images) for part in unread] == [("unheard-of", 1), (".", 1)]
    chosen, unread = discover(tmp_path, ["isic2019"])
    assert [dataset.source.name for dataset in chosen] == ["isic2019"]
    assert [(part.name, part.images) for part in unread] == [
        ("downloads", 4),
        ("kaggle2", 4),
        ("unheard-of", 1),
        (".", 1),
    ]


def test_discovery_errors_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no data folder .*make data"):
        discover(tmp_path / "absent", [])
    with pytest.raises(InputError, match="holds none of the datasets mednode, hiba"):
        discover(tmp_path, [])
    with pytest.raises(InputError, match="'isic2021'; known datasets are"):
        discover(tmp_path, ["isic2021"])
    (tmp_path / "kaggle1").mkdir()
    with pytest.raises(InputError, match="holds none of melanoma_cancer_dataset; unpack"):
        discover(tmp_path, [])
