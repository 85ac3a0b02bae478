"""Later ISIC challenge layouts: MILK10k (pairs of photographs), ISIC 2024 (body-scan tiles)."""

from __future__ import annotations

from dermaflux.phantom.layout import (
    Layout,
    PlannedImage,
    expanded,
    isic_id,
    lesion_of,
    pick,
    table,
    view,
)
from dermaflux.phantom.lesion import RandomIntegers

_MILK_CLASSES = (
    "AKIEC",
    "BCC",
    "BEN_OTH",
    "BKL",
    "DF",
    "INF",
    "MAL_OTH",
    "MEL",
    "NV",
    "SCCKA",
    "VASC",
)
# class, full diagnosis, published meaning, lesions; AKIEC is two diagnoses of different meaning.
_MILK = (
    ("BCC", "Basal cell carcinoma", "malignant", 8),
    ("MEL", "Melanoma in situ", "malignant", 3),
    ("SCCKA", "Squamous cell carcinoma, Invasive", "malignant", 2),
    ("AKIEC", "Squamous cell carcinoma in situ, Bowens disease", "malignant", 2),
    ("AKIEC", "Solar or actinic keratosis", "indeterminate", 2),
    ("NV", "Nevus, NOS, Compound", "benign", 7),
    ("BKL", "Seborrheic keratosis", "benign", 4),
    ("DF", "Dermatofibroma", "benign", 1),
    ("VASC", "Hemangioma", "benign", 1),
)
_MILK_SITES = ("trunk", "head_neck_face", "lower_extremity", "upper_extremity", "hand", "foot", "")
_MILK_HEADER = (
    "lesion_id,image_type,isic_id,attribution,copyright_license,image_manipulation,age_approx,sex,"
    "skin_tone_class,site,MONET_ulceration_crust,MONET_hair,MONET_vasculature_vessels,"
    "MONET_erythema,MONET_pigmented,MONET_gel_water_drop_fluid_dermoscopy_liquid,"
    "MONET_skin_markings_pen_ink_purple_pen"
)


def milk10k() -> Layout:
    """Two photographs per lesion under one lesion id; skin tone runs from 0 (dark) to 5 (light)."""
    layout, rng = Layout(), RandomIntegers("layout", "milk10k")
    truth: list[list[object]] = []
    about: list[list[object]] = []
    supplement: list[list[object]] = []
    kinds = [kind for kind in _MILK for _ in range(kind[3])]
    for index, (code, full, label, _) in enumerate(rng.shuffled(kinds)):
        lesion = lesion_of("milk10k", index, label)
        identifier = f"IL_{index * 9_973 + 652:07d}"
        sex, site = pick(("male", "female"), rng), pick(_MILK_SITES, rng)
        age = 5 * rng.between(4, 17)
        truth.append([identifier, *(f"{float(code == c):.1f}" for c in _MILK_CLASSES)])
        for shot, kind in enumerate(("clinical: close-up", "dermoscopic")):
            name = isic_id("milk10k", 2 * index + shot)
            path = f"milk10k/MILK10k_Training_Input/{identifier}/{name}.jpg"
            size = (150, 200) if shot else (160, 160)
            layout.images.append(PlannedImage(path, view(lesion, shot), size, "train", label))
            monet = [f"0.{rng.below(10**6):06d}" for _ in range(7)]
            manipulation = "altered" if rng.below(30) == 0 else "instrument only"
            about.append(
                [identifier, kind, name, "MILK study team", "CC-BY-NC", manipulation, age, sex]
                + [6 - lesion.tone, site, *monet]
            )
            supplement.append([name, full, "histopathology", ""])
    folder = "milk10k/MILK10k_Training"
    layout.files[f"{folder}_GroundTruth.csv"] = table("lesion_id," + ",".join(_MILK_CLASSES), truth)
    layout.files[f"{folder}_Metadata.csv"] = table(_MILK_HEADER, about)
    layout.files[f"{folder}_Supplement.csv"] = table(
        "isic_id,diagnosis_full,diagnosis_confirm_type,invasion_thickness_interval", supplement
    )
    return layout


_TILE_HEADER = (
    "isic_id,target,patient_id,age_approx,sex,anatom_site_general,clin_size_long_diam_mm,"
    "image_type,tbp_tile_type,tbp_lv_A,tbp_lv_Aext,tbp_lv_B,tbp_lv_Bext,tbp_lv_C,tbp_lv_Cext,"
    "tbp_lv_H,tbp_lv_Hext,tbp_lv_L,tbp_lv_Lext,tbp_lv_areaMM2,tbp_lv_area_perim_ratio,"
    "tbp_lv_color_std_mean,tbp_lv_deltaA,tbp_lv_deltaB,tbp_lv_deltaL,tbp_lv_deltaLB,"
    "tbp_lv_deltaLBnorm,tbp_lv_eccentricity,tbp_lv_location,tbp_lv_location_simple,"
    "tbp_lv_minorAxisMM,tbp_lv_nevi_confidence,tbp_lv_norm_border,tbp_lv_norm_color,"
    "tbp_lv_perimeterMM,tbp_lv_radial_color_std_max,tbp_lv_stdL,tbp_lv_stdLExt,"
    "tbp_lv_symm_2axis,tbp_lv_symm_2axis_angle,tbp_lv_x,tbp_lv_y,tbp_lv_z,attribution,"
    "copyright_license,lesion_id,iddx_full,iddx_1,iddx_2,iddx_3,iddx_4,iddx_5,"
    "mel_mitotic_index,mel_thick_mm,tbp_lv_dnn_lesion_confidence"
)
_TILES = {"Benign": 172, "Malignant": 5, "Indeterminate": 3}
_TILE_SITES = (
    ("posterior torso", "Torso Back Top Third", "Torso Back"),
    ("anterior torso", "Torso Front Bottom Half", "Torso Front"),
    ("lower extremity", "Left Leg - Upper", "Left Leg"),
    ("upper extremity", "Right Arm - Lower", "Right Arm"),
)


def isic2024() -> Layout:
    """Square tiles of 61 to 239 pixels, nearly half of them below 128; sparse lesion ids."""
    layout, rng = Layout(), RandomIntegers("layout", "isic2024")
    columns = _TILE_HEADER.split(",")
    rows = []
    for index, verdict in enumerate(expanded(_TILES, rng)):
        name = isic_id("isic2024", index)
        malignant = verdict == "Malignant"
        side = 61 + (rng.below(90) + rng.below(90))
        side = min(side, 239) if rng.below(9) else rng.between(150, 239)
        layout.images.append(
            PlannedImage(
                f"isic2024/train-image/image/{name}.jpg",
                lesion_of("isic2024", index, verdict.lower()),
                (side, side),
                "train",
                verdict.lower(),
            )
        )
        row: dict[str, object] = {
            column: f"{rng.below(60)}.{rng.below(10**6):06d}"
            for column in columns
            if column.startswith("tbp_lv_")
        }
        general, location, simple = pick(_TILE_SITES, rng)
        biopsied = verdict != "Benign" or rng.below(18) == 0
        row |= {
            "isic_id": name,
            "target": int(malignant),
            "patient_id": f"IP_{1_000_000 + rng.below(24) * 83_311:07d}",
            "age_approx": 5 * rng.between(5, 17),
            "sex": pick(("male", "female"), rng),
            "anatom_site_general": general,
            "clin_size_long_diam_mm": f"{rng.between(2, 9)}.{rng.below(100):02d}",
            "image_type": "TBP tile: close-up",
            "tbp_tile_type": pick(("3D: white", "3D: XP"), rng),
            "tbp_lv_location": location,
            "tbp_lv_location_simple": simple,
            "attribution": "Phantom",
            "copyright_license": pick(("CC-BY", "CC-BY-NC", "CC-0"), rng),
            "lesion_id": f"IL_{2_000_000 + index * 7_919:07d}" if biopsied else "",
            "iddx_full": verdict,
            "iddx_1": verdict,
        }
        rows.append([row.get(column, "") for column in columns])
    layout.files["isic2024/train-metadata.csv"] = table(_TILE_HEADER, rows)
    return layout
