"""ISIC challenge layouts: ISIC 2019, ISIC 2020, MILK10k and ISIC 2024 (SLICE-3D).

Headers, vocabularies and traps as published at challenge.isic-archive.com/data.
"""

from __future__ import annotations

from dermaflux.phantom.layout import (
    Layout,
    PlannedImage,
    Size,
    expanded,
    isic_id,
    lesion_of,
    pick,
    table,
    view,
)
from dermaflux.phantom.lesion import RandomIntegers

_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
_LABEL_2019 = dict.fromkeys(("MEL", "BCC", "SCC"), "malignant")
_LABEL_2019 |= dict.fromkeys(("NV", "BKL", "DF", "VASC"), "benign")
_LABEL_2019 |= {"AK": "indeterminate", "UNK": "unknown"}
_TRAIN_2019 = {"NV": 240, "BKL": 82, "MEL": 38, "BCC": 20, "AK": 14, "SCC": 7, "DF": 7, "VASC": 7}
_TEST_2019 = {"NV": 56, "BKL": 17, "DF": 3, "VASC": 4, "MEL": 42, "BCC": 31, "SCC": 7, "AK": 10}
_UNKNOWN_2019 = 50

_SITES = (
    "anterior torso",
    "posterior torso",
    "lower extremity",
    "upper extremity",
    "head/neck",
    "",
)
_SEXES = ("female", "male")
_LARGE: tuple[Size, ...] = ((512, 512), (576, 768), (512, 640))
_SIZES_2019: dict[str, tuple[Size, ...]] = {
    "HAM": ((180, 240),),
    "BCN": ((208, 208), (208, 208), (256, 256)),
    "MSK4": ((160, 213), (200, 266), (186, 248)),
    "": ((192, 288),),
}
_SMALL: tuple[Size, ...] = ((96, 140), (110, 110), (126, 168), (64, 96))
_SIZES_2020: tuple[Size, ...] = ((144, 192), (160, 240), (180, 320), (132, 132), (170, 226))


def _one_hot(classes: tuple[str, ...], name: str) -> list[str]:
    return [f"{float(name == other):.1f}" for other in classes]


def _age(rng: RandomIntegers) -> int:
    return 5 * rng.between(4, 17)


def isic2019() -> Layout:
    """Lesions with several images, `_downsampled` names, blank lesion ids, AK, a missing file."""
    layout, rng = Layout(), RandomIntegers("layout", "isic2019")
    truth: list[list[object]] = []
    about: list[list[object]] = []
    counts = {"HAM": 24306, "BCN": 53454, "MSK4": 11_110, "": 17}
    lesion_number = 0
    names = expanded(_TRAIN_2019, rng)
    while names:
        origin = ("HAM", "BCN", "MSK4", "")[rng.choose((40, 48, 4, 8))]
        images = {"HAM": 1 + rng.below(4) // 3, "BCN": 1 + rng.below(4)}.get(origin, 1)
        diagnosis = names[-1]
        images = min(images, names.count(diagnosis))
        lesion_number += 1
        lesion = lesion_of("isic2019", lesion_number, _LABEL_2019[diagnosis])
        identifier = f"{origin}_{lesion_number * 37 % 10_000:07d}" if origin else ""
        site, sex, age = pick(_SITES, rng), pick(_SEXES, rng), _age(rng)
        for shot in range(images):
            names.remove(diagnosis)
            name = f"ISIC_{counts[origin]:07d}{'' if origin else '_downsampled'}"
            counts[origin] += rng.between(1, 3)
            size = pick(_SIZES_2019[origin], rng)
            if len(truth) % 45 == 20:
                size = pick(_LARGE, rng)
            elif len(truth) % 70 == 30:
                size = pick(_SMALL, rng)
            path = f"isic2019/ISIC_2019_Training_Input/{name}.jpg"
            layout.images.append(
                PlannedImage(path, view(lesion, shot), size, "train", _LABEL_2019[diagnosis])
            )
            truth.append([name, *_one_hot(_CLASSES, diagnosis)])
            about.append([name, age, site, identifier, sex])
    missing = PlannedImage(
        "isic2019/ISIC_2019_Training_Input/ISIC_0073250.jpg",
        lesion_of("isic2019", 0, "benign"),
        (208, 208),
        "train",
        "benign",
        damage="no file",
    )
    layout.images.append(missing)
    truth.append(["ISIC_0073250", *_one_hot(_CLASSES, "NV")])
    about.append(["ISIC_0073250", 50, "lower extremity", "BCN_0009999", "female"])
    header = "image," + ",".join(_CLASSES)
    layout.files["isic2019/ISIC_2019_Training_GroundTruth.csv"] = table(header, sorted(truth))
    layout.files["isic2019/ISIC_2019_Training_Metadata.csv"] = table(
        "image,age_approx,anatom_site_general,lesion_id,sex", sorted(about)
    )
    _isic2019_test(layout, rng)
    return layout


def _isic2019_test(layout: Layout, rng: RandomIntegers) -> None:
    """Two weight columns after UNK, no lesion ids, and UNK only among the Barcelona images."""
    truth: list[list[object]] = []
    about: list[list[object]] = []
    names = expanded(_TEST_2019, rng) + ["UNK"] * _UNKNOWN_2019
    for index, diagnosis in enumerate(names):
        vienna = index < 60
        name = f"ISIC_{34321 + 3 * index if vienna else 72_000 + 2 * index:07d}"
        lesion = lesion_of("isic2019", 1000 + index, _LABEL_2019[diagnosis])
        size = pick(_SIZES_2019["HAM" if vienna else "BCN"], rng)
        path = f"isic2019/ISIC_2019_Test_Input/{name}.jpg"
        layout.images.append(PlannedImage(path, lesion, size, "test", _LABEL_2019[diagnosis]))
        weights = ["0.0", "1.0"] if index % 4 == 0 else ["1.0", "0.0"]
        truth.append([name, *_one_hot(_CLASSES, diagnosis), *weights])
        about.append([name, _age(rng), pick(_SITES, rng), pick(_SEXES, rng)])
    header = "image," + ",".join(_CLASSES) + ",score_weight,validation_weight"
    layout.files["isic2019/ISIC_2019_Test_GroundTruth.csv"] = table(header, truth)
    layout.files["isic2019/ISIC_2019_Test_Metadata.csv"] = table(
        "image,age_approx,anatom_site_general,sex", about
    )


_DIAGNOSES_2020 = {
    "unknown": 497,
    "nevus": 95,
    "melanoma": 12,
    "seborrheic keratosis": 5,
    "lentigo NOS": 2,
    "lichenoid keratosis": 2,
    "solar lentigo": 1,
    "cafe-au-lait macule": 1,
    "atypical melanocytic proliferation": 1,
}
_SITES_2020 = ("torso", "lower extremity", "upper extremity", "head/neck", "palms/soles", "")


def isic2020() -> Layout:
    """Patients with many lesions, the official list of duplicates, and an image without a row."""
    layout, rng = Layout(), RandomIntegers("layout", "isic2020")
    rows: list[list[object]] = []
    pairs: list[tuple[str, str]] = []
    names = expanded(_DIAGNOSES_2020, rng)
    for index, diagnosis in enumerate(names):
        label = "malignant" if diagnosis == "melanoma" else "benign"
        size = pick(_SIZES_2020, rng)
        if index % 60 == 25:
            size = pick(_SMALL, rng)
        elif index % 100 == 50:
            size = pick(_LARGE, rng)
        name = isic_id("isic2020", index)
        original = PlannedImage(
            f"isic2020/train/{name}.jpg",
            lesion_of("isic2020", index, label),
            size,
            "train",
            label,
        )
        layout.images.append(original)
        patient = rng.below(rng.between(1, 48))
        row: list[object] = [
            f"IP_{1_000_000 + patient * 152_389:07d}",
            f"IL_{1_000_000 + index * 12_347 % 8_999_993:07d}",
            _SEXES[patient % 2],
            f"{_age(rng):.1f}",
            pick(_SITES_2020, rng),
            diagnosis,
            label,
            int(label == "malignant"),
        ]
        rows.append([name, *row])
        if index % 70 == 10:  # every second duplicate is byte-equal, the others are re-encoded
            second = isic_id("isic2020", 5000 + index)
            quality = original.quality if len(pairs) % 2 else 75
            twin = PlannedImage(
                f"isic2020/train/{second}.jpg", original.lesion, size, "train", label, quality
            )
            layout.copy("ISIC 2020 duplicate list", original, twin)
            rows.append([second, *row])
            pairs.append((name, second))
    layout.images.append(
        PlannedImage(
            f"isic2020/train/{isic_id('isic2020', 9000)}.jpg",
            lesion_of("isic2020", 9000, "benign"),
            (144, 192),
            "train",
            "unknown",
            damage="no row",
        )
    )
    layout.files = _isic2020_files(rows, pairs)
    return layout


def _isic2020_files(rows: list[list[object]], pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Both published versions of the ground truth, the first without lesion ids."""
    folder = "isic2020/ISIC_2020_Training"
    return {
        f"{folder}_GroundTruth_v2.csv": table(
            "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,"
            "diagnosis,benign_malignant,target",
            rows,
        ),
        f"{folder}_GroundTruth.csv": table(
            "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
            "benign_malignant,target",
            [[*row[:2], *row[3:]] for row in rows],
        ),
        f"{folder}_Duplicates.csv": table("image_name_1,image_name_2", pairs),
    }
