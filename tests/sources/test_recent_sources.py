"""MILK10k and the four layouts of ISIC 2024."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import jpeg, random_image, records, rule, touch

from dermaflux.errors import InputError
from dermaflux.sources.adapter import Record
from dermaflux.sources.reading import hdf5

MILK = ["AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC"]


def milk10k(root: Path) -> None:
    """Three lesions, photographed twice each; the ids of an image say lesion and shot."""
    lesions = {"IL_1": "AKIEC", "IL_2": "AKIEC", "IL_3": "SCCKA"}
    details = (
        '"Squamous cell carcinoma in situ, Bowens disease"',
        "Solar or actinic keratosis",
        "Keratoacanthoma",
    )
    truth = [
        f"{name}," + ",".join(f"{float(code == chosen)}" for code in MILK)
        for name, chosen in lesions.items()
    ]
    about, supplement = [], []
    for number, lesion in enumerate(lesions):
        for shot, kind in enumerate(("clinical: close-up", "dermoscopic")):
            image = f"ISIC_{number}{shot}"
            about.append(f"{lesion},{kind},{image},CC-BY-NC,{(0, 5, 9)[number]}")
            supplement.append(f"{image},{details[number]}")
            # Some unpackers nest the folder a second time.
            nested = "MILK10k_Training_Input/" * (1 + number // 2)
            touch(root, f"{nested}{lesion}/{image}.jpg")
    for part, header, rows in (
        ("GroundTruth", "lesion_id," + ",".join(MILK), truth),
        ("Metadata", "lesion_id,image_type,isic_id,copyright_license,skin_tone_class", about),
        ("Supplement", "isic_id,diagnosis_full", supplement),
    ):
        (root / f"MILK10k_Training_{part}.csv").write_text("\n".join([header, *rows]))


def test_milk10k_pairs_share_a_lesion_and_akiec_is_two_diagnoses(tmp_path: Path) -> None:
    milk10k(tmp_path)
    images = records(tmp_path, "milk10k")
    labels = {name: r.facts.label for name, r in images.items()}
    assert labels == {
        "ISIC_00": "malignant",
        "ISIC_01": "malignant",
        "ISIC_10": "indeterminate",
        "ISIC_11": "indeterminate",
        "ISIC_20": "malignant",
        "ISIC_21": "malignant",
    }
    assert all(r.path for r in images.values())
    assert images["ISIC_00"].facts.lesion_id == images["ISIC_01"].facts.lesion_id == "IL_1"
    assert images["ISIC_00"].facts.modality == "clinical"
    assert images["ISIC_01"].facts.modality == "dermoscopic"
    # Class 0 is very dark and 5 very light; 9 does not exist.
    assert images["ISIC_00"].facts.skin_tone == "VI"
    assert images["ISIC_10"].facts.skin_tone == "I"
    assert images["ISIC_20"].facts.skin_tone is None
    assert images["ISIC_20"].facts.unread == (("skin_tone_class", "9"),)
    (tmp_path / "MILK10k_Training_Supplement.csv").unlink()
    assert records(tmp_path, "milk10k")["ISIC_00"].facts.label == "indeterminate"


def test_milk10k_image_whose_lesion_has_no_label(tmp_path: Path) -> None:
    milk10k(tmp_path)
    truth = tmp_path / "MILK10k_Training_GroundTruth.csv"
    truth.write_text("\n".join(truth.read_text().splitlines()[:-1]))
    assert rule(records(tmp_path, "milk10k")["ISIC_20"]) == "no-label"


KAGGLE = "isic_id,target,patient_id,copyright_license,lesion_id,iddx_full,iddx_1"
ROWS = [
    "ISIC_1,0,IP_1,CC-0,,Benign,Benign",
    "ISIC_2,1,IP_1,CC-BY-NC,IL_2,Malignant::Malignant proliferations::Melanoma,Malignant",
    "ISIC_3,0,IP_2,CC-BY,IL_3,Indeterminate::Atypical melanocytic neoplasm,Indeterminate",
    "ISIC_4,1,IP_2,CC-BY,IL_4,Benign,Benign",
]


def check_tiles(images: dict[str, Record]) -> None:
    assert [images[f"ISIC_{n}"].facts.label for n in (1, 2, 3)] == [
        "benign",
        "malignant",
        "indeterminate",
    ]
    assert [images[f"ISIC_{n}"].facts.licence for n in (1, 2, 3)] == ["CC0", "CC-BY-NC", "CC-BY"]
    assert images["ISIC_2"].facts.diagnosis == "melanoma"
    assert images["ISIC_1"].facts.diagnosis is None
    assert images["ISIC_1"].facts.lesion_id is None
    assert images["ISIC_3"].facts.patient_id == "IP_2"


def test_isic2024_kaggle_folder(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train-image/image/ISIC_{n}.jpg" for n in range(1, 5)))
    (tmp_path / "train-metadata.csv").write_text("\n".join([KAGGLE, *ROWS]))
    images = records(tmp_path, "isic2024")
    check_tiles(images)
    assert rule(images["ISIC_4"]) == "contradiction"


def test_isic2024_kaggle_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    (tmp_path / "train-metadata.csv").write_text("\n".join([KAGGLE, *ROWS]))
    encoded = jpeg(random_image(1))
    path = tmp_path / "train-image.hdf5"
    with h5py.File(path, "w") as file:
        for name, kind in (("ISIC_1", np.void), ("ISIC_2", np.bytes_), ("ISIC_9", np.void)):
            file[name] = kind(encoded)
    images = records(tmp_path, "isic2024")
    rules = {name: rule(record) for name, record in images.items() if rule(record)}
    assert rules == {"ISIC_9": "no-row", "ISIC_3": "no-image", "ISIC_4": "no-image"}
    check_tiles(images)
    record = images["ISIC_2"]
    assert (record.path, record.member) == (path, "ISIC_2")
    assert hdf5.read_member(path, "ISIC_1") == encoded
    assert hdf5.read_member(path, "ISIC_2") == encoded
    with pytest.raises(OSError, match="has no readable member ISIC_5"):
        hdf5.read_member(path, "ISIC_5")


def test_a_broken_hdf5_file_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    path = tmp_path / "train-image.hdf5"
    path.write_bytes(b"\x89HDF\r\n")
    with pytest.raises(InputError, match="is not a complete HDF5 file .*download it again"):
        hdf5.members(path)


@pytest.mark.parametrize("nested", [False, True])
def test_isic2024_challenge_site(tmp_path: Path, nested: bool) -> None:
    folder = "ISIC_2024_Training_Input/" * (1 + nested)
    touch(tmp_path, *(f"{folder}ISIC_{n}.jpg" for n in range(1, 4)))
    (tmp_path / "ISIC_2024_Training_GroundTruth.csv").write_text(
        "isic_id,malignant\nISIC_1,0.0\nISIC_2,1.0\nISIC_3,0.0\n"
    )
    cells = [row.split(",") for row in ROWS[:3]]
    (tmp_path / folder / "metadata.csv").write_text(
        "\n".join(
            ["isic_id,patient_id,copyright_license"] + [f"{c[0]},{c[2]},{c[3]}" for c in cells]
        )
    )
    (tmp_path / "ISIC_2024_Training_Supplement.csv").write_text(
        "\n".join(
            ["isic_id,lesion_id,iddx_full,iddx_1"] + [f"{c[0]},{c[4]},{c[5]},{c[6]}" for c in cells]
        )
    )
    check_tiles(records(tmp_path, "isic2024"))


def test_isic2024_from_isic_cli(tmp_path: Path) -> None:
    touch(tmp_path, "ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg")
    (tmp_path / "metadata.csv").write_text(
        "isic_id,copyright_license,diagnosis_1,diagnosis_2,diagnosis_3,image_type,lesion_id,"
        "patient_id\n"
        "ISIC_1,CC-0,Benign,,,TBP tile: close-up,,IP_1\n"
        "ISIC_2,CC-BY-NC,Malignant,Malignant proliferations,Melanoma,TBP tile: close-up,"
        "IL_2,IP_1\n"
        "ISIC_3,CC-BY,Indeterminate,,,TBP tile: close-up,IL_3,IP_2\n"
    )
    images = records(tmp_path, "isic2024")
    check_tiles(images)
    assert images["ISIC_1"].facts.modality == "tile"
