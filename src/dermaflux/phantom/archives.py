"""Layouts of the datasets that hospitals and universities publish themselves.

MED-NODE, HIBA, DERM12345, PAD-UFES-20 and DDI, with their headers, spellings and traps.
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

_SIZES: tuple[Size, ...] = ((140, 180), (150, 150), (200, 160), (132, 170))
_ROMAN = ("I", "II", "III", "IV", "V", "VI")


def mednode() -> Layout:
    """Class folders `melanoma` and `naevus`, numeric stems, no CSV."""
    layout, rng = Layout(), RandomIntegers("layout", "mednode")
    for index in range(30):
        label, folder = ("malignant", "melanoma") if index < 12 else ("benign", "naevus")
        path = f"mednode/complete_mednode_dataset/{folder}/{896 + index * 713}.jpg"
        lesion = lesion_of("mednode", index, label)
        layout.images.append(PlannedImage(path, lesion, pick(_SIZES, rng), "all", label))
    return layout


_HIBA = {
    "nevus": ("benign", 18),
    "basal cell carcinoma": ("malignant", 10),
    "melanoma": ("malignant", 8),
    "squamous cell carcinoma": ("malignant", 5),
    "seborrheic keratosis": ("benign", 3),
    "actinic keratosis": ("indeterminate", 2),
    "dermatofibroma": ("benign", 2),
    "vascular lesion": ("benign", 1),
    "solar lentigo": ("benign", 1),
}


def hiba() -> Layout:
    """The archive's 2023 columns, in which actinic keratosis is `benign`."""
    layout, rng = Layout(), RandomIntegers("layout", "hiba")
    rows = []
    names = expanded({name: count for name, (_, count) in _HIBA.items()}, rng)
    for index, diagnosis in enumerate(names):
        name, label = isic_id("hiba", index), _HIBA[diagnosis][0]
        lesion, (height, width) = lesion_of("hiba", index, label), pick(_SIZES, rng)
        layout.images.append(
            PlannedImage(f"hiba/images/{name}.jpg", lesion, (height, width), "all", label)
        )
        kind = pick(("dermoscopic",) * 4 + ("clinical: close-up", "clinical: overview"), rng)
        polarised = "contact polarized" if kind == "dermoscopic" else ""
        patient = rng.below(20)
        rows.append(
            [name, "Hospital Italiano de Buenos Aires", "CC-BY", 5 * rng.between(4, 17)]
            + [pick(("head/neck", "anterior torso", "lower extremity", ""), rng)]
            + ["malignant" if label == "malignant" else "benign", polarised, diagnosis]
            + ["histopathology", "False", _ROMAN[lesion.tone - 1], kind]
            + [f"IL_{3_000_000 + index * 4_211:07d}", f"IP_{4_000_000 + patient * 31_607:07d}"]
            + ["False", width, height, pick(("female", "male"), rng)]
        )
    layout.files["hiba/metadata.csv"] = table(
        "isic_id,attribution,copyright_license,age_approx,anatom_site_general,benign_malignant,"
        "dermoscopic_type,diagnosis,diagnosis_confirm_type,family_hx_mm,fitzpatrick_skin_type,"
        "image_type,lesion_id,patient_id,personal_hx_mm,pixels_x,pixels_y,sex",
        rows,
    )
    return layout


_NON, _KERATINOCYTIC = "nonmelanocytic", ("keratinocytic", "keratinocytic")
# code: super class, malignancy, main classes 1 and 2, sub class, images
_DERM12345 = {
    "acb": ("melanocytic", "benign", "banal", "compound", "acral", 16),
    "jb": ("melanocytic", "benign", "banal", "junctional", "junctional", 20),
    "jd": ("melanocytic", "benign", "dysplastic", "junctional", "junctional", 14),
    "sk": (_NON, "benign", *_KERATINOCYTIC, "seborrheic keratosis", 10),
    "ak": (_NON, "indeterminate", *_KERATINOCYTIC, "actinic keratosis", 3),
    "bcc": (_NON, "malignant", *_KERATINOCYTIC, "basal cell carcinoma", 7),
    "mel": ("melanocytic", "malignant", "melanoma", "melanoma", "melanoma", 6),
    "dfsp": (_NON, "malignant", "fibrohistiocytic", "fibrohistiocytic", "dfsp", 4),
}  # fmt: skip


def derm12345() -> Layout:
    """Three folder trees by label code, two CSVs, and one patient in both train and test."""
    layout, rng = Layout(), RandomIntegers("layout", "derm12345")
    rows: dict[str, list[list[object]]] = {"train": [], "test": []}
    names = expanded({code: entry[-1] for code, entry in _DERM12345.items()}, rng)
    for index, code in enumerate(names):
        part = ("train_part_1", "train_part_2", "test")[rng.choose((45, 35, 20))]
        split = part.split("_")[0]
        name = f"DERM_{100_000 + index * 7_919 % 900_000:06d}"
        patient = rng.below(18) + (20 if split == "test" else 0)
        identifier = f"PID_{100_000 + patient * 20_983:06d}" if code != "dfsp" else "PID_910308"
        label = _DERM12345[code][1]
        path = f"derm12345/derm12345_{part}/{code}/{name}.jpg"
        lesion = lesion_of("derm12345", index, label)
        layout.images.append(PlannedImage(path, lesion, pick(_SIZES, rng), split, label))
        entry = _DERM12345[code]
        rows[split].append([name, identifier, "dermoscopic", "CC-BY", split, *entry[:-1], code])
    header = (
        "image_id,patient_id,image_type,copyright-license,split,super_class,malignancy,"
        "main_class_1,main_class_2,sub_class,label"
    )
    for split, lines in rows.items():
        layout.files[f"derm12345/derm12345_metadata_{split}.csv"] = table(header, lines)
    return layout


_PAD = {
    "BCC": ("malignant", 12),
    "ACK": ("indeterminate", 11),
    "NEV": ("benign", 6),
    "SEK": ("benign", 5),
    "SCC": ("malignant", 3),
    "MEL": ("malignant", 2),
}


def padufes20() -> Layout:
    """PNG, the spellings `fitspatrick` and `biopsed`, clinical answers left out, lesion views."""
    layout, rng = Layout(), RandomIntegers("layout", "padufes20")
    rows = []
    names = expanded({code: count for code, (_, count) in _PAD.items()}, rng)
    serial = 0
    for index, code in enumerate(names):
        patient, label = f"PAT_{8 + index // 2 * 31}", _PAD[code][0]
        lesion = lesion_of("padufes20", index, label)
        answers: list[object] = [""] * 4
        clinical: list[object] = [""] * 8
        asked = rng.below(3) > 0
        if asked:
            answers = [rng.below(2) == 1, rng.below(2) == 1, "POMERANIA", "GERMANY"]
            clinical = [rng.below(2) == 1, pick(("MALE", "FEMALE"), rng)]
            clinical += [rng.below(2) == 1 for _ in range(4)] + [f"{lesion.tone}.0"]
        age = rng.between(6, 94)
        diameters = ["8.0", "5.0"] if asked else ["", ""]
        signs = [pick(("True", "False", "UNK"), rng) for _ in range(6)]
        for shot in range(1 + (rng.below(4) == 0)):
            serial += 1
            name = f"{patient}_{15 + index}_{820 + serial * 3}.png"
            path = f"padufes20/images/imgs_part_{1 + serial % 3}/{name}"
            size = pick(_SIZES, rng)
            layout.images.append(PlannedImage(path, view(lesion, shot), size, "all", label))
            rows.append(
                [patient, 15 + index, *answers, age, *clinical[:7]]
                + [pick(("FACE", "ARM", "NECK", "FOREARM", "BACK"), rng), *diameters, code]
                + [*signs, name, code in {"BCC", "SCC", "MEL"}]
            )
    layout.files["padufes20/metadata.csv"] = table(
        "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,"
        "skin_cancer_history,cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,"
        "diameter_1,diameter_2,diagnostic,itch,grew,hurt,changed,bleed,elevation,img_id,biopsed",
        rows,
    )
    return layout


_DDI = (
    ("melanocytic-nevi", False, 14),
    ("seborrheic-keratosis", False, 9),
    ("actinic-keratosis", False, 2),
    ("basal-cell-carcinoma", True, 5),
    ("melanoma-in-situ", True, 4),
    ("mycosis-fungoides", True, 2),
    ("atypical-spindle-cell-nevus-of-reed", True, 1),
)


def ddi() -> Layout:
    """PNG, an unnamed index column, tones as 12, 34 and 56."""
    layout, rng = Layout(), RandomIntegers("layout", "ddi")
    rows = []
    kinds = [kind for kind in _DDI for _ in range(kind[2])]
    for index, (disease, malignant, _) in enumerate(rng.shuffled(kinds)):
        label = "malignant" if malignant else "benign"
        name = f"{index + 1:06d}.png"
        lesion = lesion_of("ddi", index, label)
        path = f"ddi/ddidiversedermatologyimages/{name}"
        layout.images.append(PlannedImage(path, lesion, pick(_SIZES, rng), "all", label))
        tone = (12, 34, 56)[(lesion.tone - 1) // 2]
        rows.append([index, index + 1, name, tone, malignant, disease])
    layout.files["ddi/ddidiversedermatologyimages/ddi_metadata.csv"] = table(
        ",DDI_ID,DDI_file,skin_tone,malignant,disease", rows
    )
    return layout
