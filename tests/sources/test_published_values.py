"""Optional columns of published datasets, saved again by R, pandas or a spreadsheet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from layouts import isic2019, isic2020, records, touch

from dermaflux.sources.adapter import Facts

PLACEHOLDERS = ("NA", "nan", "<NA>", "unknown", "-1", "?")


def hiba(root: Path, value: str) -> Facts:
    touch(root, "ISIC_0.jpg")
    names = "fitzpatrick_skin_type;image_type;lesion_id;patient_id;copyright_license;diagnosis"
    cells = ";".join([value] * 6)
    # As Excel saves it where commas are decimal marks.
    text = f"isic_id;diagnosis_1;{names}\nISIC_0;Benign;{cells}\n"
    (root / "metadata.csv").write_text(text, encoding="utf-16")
    (root / "SupplementaryData.csv").write_text(f"isic_id,skin_type\nISIC_0,{value}\n")
    return records(root, "hiba")["ISIC_0"].facts


def padufes20(root: Path, value: str) -> Facts:
    touch(root, "images/imgs_part_1/PAT_1.png")
    header = "img_id,diagnostic,patient_id,lesion_id,fitspatrick"
    (root / "metadata.csv").write_text(f"{header}\nPAT_1.png,NEV,{value},{value},{value}\n")
    return records(root, "padufes20")["PAT_1"].facts


def derm12345(root: Path, value: str) -> Facts:
    touch(root, "derm12345_train_part_1/acb/DERM_1.jpg")
    header = "image_id,label,malignancy,split,patient_id,copyright-license,sub_class"
    (root / "derm12345_metadata_train.csv").write_text(
        f"{header}\nDERM_1,acb,benign,Train,{value},{value},{value}\n"
    )
    return records(root, "derm12345")["DERM_1"].facts


def ddi(root: Path, value: str) -> Facts:
    touch(root, "000001.png")
    header = "DDI_file,malignant,skin_tone,disease"
    (root / "ddi_metadata.csv").write_text(f"{header}\n000001.png,FALSE,{value},{value}\n")
    return records(root, "ddi")["000001"].facts


def lesions_of_isic2019(root: Path, value: str) -> Facts:
    isic2019(root, {"ISIC_1": ("NV", value)}, {})
    return records(root, "isic2019")["ISIC_1"].facts


def patients_of_isic2020(root: Path, value: str) -> Facts:
    isic2020(root, {"ISIC_1": (value, 0)})
    return records(root, "isic2020")["ISIC_1"].facts


def isic2024(root: Path, value: str) -> Facts:
    touch(root, "train-image/image/ISIC_1.jpg")
    header = "isic_id,target,patient_id,lesion_id,copyright_license,iddx_1,iddx_full"
    cells = ",".join([value] * 5)
    (root / "train-metadata.csv").write_text(f"{header}\nISIC_1,0.0,{cells}\n")
    return records(root, "isic2024")["ISIC_1"].facts


def milk10k(root: Path, value: str) -> Facts:
    touch(root, "MILK10k_Training_Input/IL_1/ISIC_1.jpg")
    codes = "AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC"
    one_hot = ",".join(str(float(code == "NV")) for code in codes.split(","))
    (root / "MILK10k_Training_GroundTruth.csv").write_text(f"lesion_id,{codes}\nIL_1,{one_hot}\n")
    header = "isic_id,lesion_id,image_type,skin_tone_class,copyright_license"
    (root / "MILK10k_Training_Metadata.csv").write_text(
        f"{header}\nISIC_1,IL_1,{value},{value},{value}\n"
    )
    return records(root, "milk10k")["ISIC_1"].facts


def test_a_placeholder_of_the_new_taxonomy_leaves_the_old_columns(tmp_path: Path) -> None:
    touch(tmp_path, "ISIC_0.jpg", "ISIC_1.jpg")
    (tmp_path / "metadata.csv").write_text(
        "isic_id,diagnosis_1,diagnosis_2,diagnosis,benign_malignant\n"
        "ISIC_0,NA,Nevus,NA,malignant\nISIC_1,NA,NA,melanoma,NA\n"
    )
    facts = [record.facts for record in records(tmp_path, "hiba").values()]
    assert [(f.label, f.diagnosis) for f in facts] == [
        ("malignant", "nevus"),
        ("malignant", "melanoma"),
    ]


READERS = (
    *(hiba, padufes20, derm12345, ddi, lesions_of_isic2019, patients_of_isic2020),
    *(isic2024, milk10k),
)


@pytest.mark.parametrize("reader", READERS)
def test_placeholders_in_optional_columns_are_null(
    tmp_path: Path, reader: Callable[[Path, str], Facts]
) -> None:
    empty = reader(tmp_path / "empty", "")
    assert empty.label == "benign"
    assert empty.unread == ()
    for number, value in enumerate(PLACEHOLDERS):
        facts = reader(tmp_path / str(number), value)
        assert facts == empty, value  # label and null values alike
        assert facts.problem is None
        assert {text for _, text in facts.unread} == {value}
