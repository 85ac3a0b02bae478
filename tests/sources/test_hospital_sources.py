"""MED-NODE, HIBA, DERM12345, PAD-UFES-20 and DDI: the traps of their layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import records, rule, touch

from dermaflux.sources.discovery import discover
from dermaflux.sources.published import derm12345


@pytest.mark.parametrize("wrapper", ["complete_mednode_dataset/", ""])
def test_mednode_spells_naevus_and_repeats_stems(tmp_path: Path, wrapper: str) -> None:
    touch(tmp_path, f"{wrapper}melanoma/896.jpg", f"{wrapper}naevus/896.jpg")
    images = records(tmp_path, "mednode")
    assert {name: r.facts.label for name, r in images.items()} == {
        "melanoma/896": "malignant",
        "naevus/896": "benign",
    }


OLD = "isic_id,copyright_license,benign_malignant,diagnosis,image_type,lesion_id,patient_id"
NEW = (
    "isic_id,attribution,copyright_license,diagnosis_1,diagnosis_2,diagnosis_3,"
    "fitzpatrick_skin_type,image_type,lesion_id,patient_id"
)


def test_hiba_of_2023_calls_actinic_keratosis_benign_and_is_overruled(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/ISIC_{n}.jpg" for n in range(4)))
    (tmp_path / "SupplementaryData.csv").write_text("isic_id,skin_type\nISIC_0,III\nISIC_9,I\n")
    (tmp_path / "hospital-italiano-de-buenos-aires-skin-lesions-images-2019-2022.csv").write_text(
        f"{OLD}\n"
        "ISIC_0,CC-BY,benign,actinic keratosis,clinical: overview,IL_0000001,IP_0000001\n"
        "ISIC_1,CC-BY,malignant,squamous cell carcinoma,dermoscopic,IL_0000002,IP_0000001\n"
        "ISIC_2,CC-BY,,basal cell carcinoma,clinical: close-up,,\n"
        "ISIC_3,CC-BY,,,dermoscopic,,\n"
    )
    images = records(tmp_path, "hiba")
    labels = [r.facts.label for r in images.values()]
    assert labels == ["indeterminate", "malignant", "malignant", None]
    assert rule(images["ISIC_3"]) == "no-label"
    kinds = [r.facts.modality for r in images.values()]
    assert kinds == ["clinical", "dermoscopic", "clinical", "dermoscopic"]
    first = images["ISIC_0"].facts
    assert (first.skin_tone, first.licence, first.patient_id) == ("III", "CC-BY", "IP_0000001")


def test_hiba_of_2026_has_no_benign_malignant_column(tmp_path: Path) -> None:
    rows = [
        "ISIC_0,HIBA,CC-BY,Indeterminate,Indeterminate epidermal proliferations,"
        "Solar or actinic keratosis,V,dermoscopic,IL_0000001,IP_0000001",
        "ISIC_1,HIBA,CC-BY,Benign,Benign melanocytic proliferations,Nevus,,dermoscopic,,",
        "ISIC_2,HIBA,CC-BY,,,,,dermoscopic,,",
        "ISIC_3,HIBA,CC-BY,Doubtful,,,,dermoscopic,,",
        "ISIC_4,HIBA,CC-??,Benign,,,VII,dermoscopic,,",
    ]
    touch(tmp_path / "hiba", *(f"ISIC_{n}.jpg" for n in range(5)))  # flat, as isic-cli leaves it
    (tmp_path / "hiba/metadata.csv").write_text("\n".join([NEW, *rows]))
    images = records(tmp_path / "hiba", "hiba")
    assert images["ISIC_0"].facts.label == "indeterminate"
    assert images["ISIC_0"].facts.diagnosis == "actinic keratosis"
    assert images["ISIC_0"].facts.skin_tone == "V"
    assert images["ISIC_1"].facts.label == "benign"
    assert [rule(r) for r in images.values()] == [None, None, "no-label", "bad-value", "bad-value"]
    assert [d.source.name for d in discover(tmp_path, [])[0]] == ["hiba"]


def test_the_new_taxonomy_overrules_the_old_column(tmp_path: Path) -> None:
    touch(tmp_path, "ISIC_0.jpg")
    (tmp_path / "metadata.csv").write_text(
        "isic_id,benign_malignant,diagnosis,diagnosis_1\nISIC_0,benign,actinic keratosis,"
        "Indeterminate\n"
    )
    assert records(tmp_path, "hiba")["ISIC_0"].facts.label == "indeterminate"


DERM = (
    "image_id,patient_id,image_type,copyright-license,split,super_class,malignancy,main_class_1,"
    "main_class_2,sub_class,label"
)


def derm_row(name: str, code: str, malignancy: str, split: str, kind: str, sub: str) -> str:
    classes = f"melanocytic,{malignancy},{kind},x,{sub}"
    return f"{name},PID_910308,dermoscopic,CC-BY,{split},{classes},{code}"


def test_derm12345_reads_three_trees_and_its_test_part(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "derm12345_train_part_1/acb/DERM_1.jpg",
        "derm12345_train_part_2/ch/DERM_2.jpg",
        "derm12345_train_part_2/mel/DERM_3.jpg",
        "derm12345_train_part_2/acb/DERM_6.jpg",
        "derm12345_test/ak/DERM_4.jpg",
        "derm12345_test/ak/DERM_5.jpg",
        "derm12345_test/ak/DERM_7.jpg",
    )
    train = [
        derm_row("DERM_1", "acb", "benign", "train", "banal", "acral"),
        derm_row("DERM_2", "ch", "malignant", "train", "keratinocytic", "cutaneous_horn"),
        derm_row("DERM_3", "mel", "malignant", "train", "melanoma", "melanoma"),
        derm_row("DERM_6", "mel", "malignant", "train", "melanoma", "melanoma"),
    ]
    test = [
        derm_row("DERM_4", "ak", "indeterminate", "test", "keratinocytic", "actinic_keratosis"),
        derm_row("DERM_5", "ak", "benign", "test", "keratinocytic", "actinic_keratosis"),
        derm_row("DERM_7", "akk", "benign", "test", "keratinocytic", "actinic_keratosis"),
    ]
    (tmp_path / "derm12345_metadata_train.csv").write_text("\n".join([DERM, *train]))
    (tmp_path / "derm12345_metadata_test.csv").write_text("\n".join([DERM, *test]))
    images = records(tmp_path, "derm12345")
    labelled = [(r.split, r.facts.label, r.facts.diagnosis) for r in images.values() if not rule(r)]
    assert labelled == [
        ("train", "benign", "nevus"),
        ("train", "malignant", "cutaneous horn"),
        ("train", "malignant", "melanoma"),
        ("test", "indeterminate", "actinic keratosis"),
    ]
    # The folder, the malignancy, or the code contradicts the row.
    assert rule(images["DERM_6"]) == rule(images["DERM_5"]) == "contradiction"
    assert rule(images["DERM_7"]) == "bad-value"
    # One of the three patients whom the authors put in both parts: one key, for the leak guard.
    assert {r.facts.patient_id for r in images.values()} == {"derm12345:PID_910308"}
    assert {r.facts.licence for r in images.values()} == {"CC-BY"}


def test_derm12345_has_forty_codes() -> None:
    codes = [code for line in derm12345.CODES.values() for code in line.split()]
    assert len(codes) == len(set(codes)) == 40
    assert len(derm12345.CODES["malignant"].split()) == 12


PAD = "patient_id,lesion_id,age,fitspatrick,region,diagnostic,itch,img_id,biopsed"


def test_padufes20_ids_carry_the_suffix_and_lesion_numbers_repeat(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "images/imgs_part_1/PAT_1_5_10.png",
        "images/imgs_part_2/imgs_part_2/PAT_2_5_11.png",  # zip unpacked into its own folder
        "images/imgs_part_3/PAT_3_6_12.png",
    )
    (tmp_path / "metadata.csv").write_text(
        f"{PAD}\n"
        "PAT_1,5,20,3.0,ARM,SCC,True,PAT_1_5_10.png,True\n"
        "PAT_2,5,30,,ARM,ACK,UNK,PAT_2_5_11.png,False\n"
        "PAT_3,6,40,7.0,ARM,NEV,UNK,PAT_3_6_12.png,False\n"
        "PAT_4,7,40,,ARM,MEL,UNK,PAT_4_7_13.png,False\n"
    )
    images = records(tmp_path, "padufes20")
    assert images["PAT_1_5_10"].facts.label == "malignant"
    assert images["PAT_1_5_10"].facts.skin_tone == "III"
    assert images["PAT_2_5_11"].facts.label == "indeterminate"
    assert images["PAT_2_5_11"].facts.skin_tone is None
    assert images["PAT_1_5_10"].facts.lesion_id != images["PAT_2_5_11"].facts.lesion_id
    assert [rule(r) for r in images.values()] == [None, None, None, "no-image"]
    assert images["PAT_3_6_12"].facts.unread == (("fitspatrick", "7.0"),)
    assert images["PAT_4_7_13"].facts.problem
    assert "PAT_4_7_13.png" in images["PAT_4_7_13"].facts.problem.reason


def test_hiba_and_padufes20_both_have_a_metadata_csv_and_are_told_apart(tmp_path: Path) -> None:
    for name in ("hiba", "padufes20", "unnamed"):
        touch(tmp_path, f"{name}/images/imgs_part_1/PAT_1_5_10.png")
        (tmp_path / name / "metadata.csv").write_text(f"{PAD}\n")
    (tmp_path / "padufes20").rename(tmp_path / "pad")
    touch(tmp_path, "hiba/ISIC_1.jpg")
    (tmp_path / "hiba/images/imgs_part_1/PAT_1_5_10.png").unlink()
    (tmp_path / "hiba/images/imgs_part_1").rmdir()
    (tmp_path / "unnamed/images/imgs_part_1").rename(tmp_path / "unnamed/images/other")
    datasets, unread = discover(tmp_path, [])
    roots = {d.source.name: d.root.name for d in datasets}
    assert roots == {"hiba": "hiba", "padufes20": "pad"}
    assert [part.name for part in unread] == ["unnamed"]


@pytest.mark.parametrize("folder", ["ddidiversedermatologyimages/", ""])
def test_ddi_is_labelled_by_the_column_malignant(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, *(f"{folder}00000{n}.png" for n in range(1, 5)))
    (tmp_path / f"{folder}ddi_metadata.csv").write_text(
        ",DDI_ID,DDI_file,skin_tone,malignant,disease\n"
        "0,1,000001.png,56,TRUE,atypical-spindle-cell-nevus-of-reed\n"
        "1,2,000002.png,12,False,actinic-keratosis\n"
        "2,3,000003.png,34,True,mycosis-fungoides\n"
        "3,4,000004.png,78,maybe,melanoma\n"
    )
    images = records(tmp_path, "ddi")
    assert [r.facts.label for r in images.values()] == ["malignant", "benign", "malignant", None]
    assert [r.facts.skin_tone for r in images.values()] == ["V-VI", "I-II", "III-IV", None]
    assert images["000002"].facts.diagnosis == "actinic keratosis"
    assert rule(images["000004"]) == "bad-value"
