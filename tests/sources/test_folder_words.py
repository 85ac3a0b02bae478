"""What folder names say about the label, and the ways in which they can lie."""

from __future__ import annotations

import unicodedata

import pytest

from dermaflux.sources.adapter import Problem
from dermaflux.sources.folder_words import FolderWords

WORDS = {
    **{"benign": "benign", "malignant": "malignant", "indeterminate": "indeterminate"},
    **{"melanoma": "malignant", "Nevus": "benign", "naevi": "benign", "gutärtig": "benign"},
    **{"0": "benign", "1": "malignant", "m": "malignant", "mm": "malignant", "bcc": "malignant"},
    **{"clark nevus": "benign", "not melanoma": "benign", "unclear": "indeterminate"},
}


def said(path: str) -> str:
    """The label that a path says, or the rule it breaks."""
    label = FolderWords(WORDS).label_of(path.split("/"))
    return label.rule if isinstance(label, Problem) else label


@pytest.mark.parametrize(
    ("label", "paths"),
    [
        (
            "benign",
            "Benign|naevi|clinic/benign/patient 7|benign images (2)|Benign - Copy|01_benign|NEVUS"
            "|Clark_nevus|benign_nevus|benign/nevus|benign/benign1|not_melanoma|class=benign"
            "|benign_vs_malignant/benign|melanoma_cancer_dataset/train/benign|0|0/patient_1|0/0"
            "|Melanoma detection/2019/test/nevi/benign|pre-malignant/nevus|non_melanoma/nevus",
        ),
        (
            "malignant",
            "MALIGNANT/2019|skin_malignant|malignant melanoma|1/patient_0|melanomas|M|MM|mm/1"
            "|melanoma_in_situ|bcc_2020|malignant_1|malignant/melanoma_smith|malignant/no_flash"
            "|malignant/non-polarized|malignant/pre-op|test/malignant/p12/macro|malignant(3)"
            "|melanoma_vs_rest/melanoma",
        ),
        ("indeterminate", "unclear|indeterminate/2020"),
        (
            "no-label",
            "2019|patient_0|class_1|grade 0|patient_m|10_mm|nonmalignant|premalignant|bening"
            "|malignent|hammer|negative|suspected|sans melanome|subcc",
        ),
        (
            "ambiguous-folder",
            # A negation or a doubt, before or behind, in any language.
            "non-malignant|no_melanoma|without-melanoma|not malignant|never_melanoma|un-malignant"
            "|ohne Melanoma|kein melanoma|sin_melanoma|sans-melanoma|senza_melanoma|pre-malignant"
            "|anti melanoma|ex_melanoma|free of melanoma|melanoma-free|melanoma-negative"
            "|malignant_excluded|other than melanoma|suspected melanoma|possible_melanoma"
            "|probable-melanoma|rule out melanoma|melanoma ruled out|unlike_malignant"
            "|benign-looking|melanoma-like|melanoma mimics|history of melanoma"
            "|potentially malignant|melanoma_0|malignant=0|melanoma?|!melanoma"
            "|~melanoma|melanoma(-)|-malignant"
            "|melanoma \u2212|malignant_zzz|melanoma_dataset"
            # More than one label.
            "|benign or malignant|benign_vs_malignant|nevus-melanoma|benign_bcc"
            # Folders that contradict each other, in either order.
            "|malignant/benign|benign/malignant|skin_malignant/benign|benign/x/melanoma|1/0|0/1"
            "|benign/melanomas|benign/unclear|benign/squamous cell carcinoma|malignant/naevus"
            # A folder that turns what another one says.
            "|malignant/excluded|melanoma/negative|malignant/ruled out|malignant/not|melanoma/no/7"
            "|malignant/uncertain cases|malignant/nonmalignant|malignant/benign1|suspected/melanoma"
            "|malignant/false positive|malignant/false_positives|false negatives/malignant"
            "|malignant/negatives|swapped_labels/malignant|malignant/misclassified|no_melanoma/melanoma|malignant/pre-malignant",
        ),
    ],
)
def test_a_folder_says_a_label_only_where_all_of_its_name_is_understood(
    label: str, paths: str
) -> None:
    assert {path: said(path) for path in paths.split("|")} == dict.fromkeys(paths.split("|"), label)


def test_unicode_forms_and_case_are_one_word() -> None:
    folders = ["GUTÄRTIG", "gutärtig_2019", unicodedata.normalize("NFD", "Gutärtig")]
    assert [said(folder) for folder in folders] == ["benign"] * 3


def test_the_sentence_names_the_folder_the_word_and_the_fix() -> None:
    words = FolderWords(WORDS)
    assert words.label_of(["a", "no_melanoma\n"]) == Problem(
        "ambiguous-folder",
        r"its folder 'no_melanoma\n' has a word for malignant beside 'no', which may change it; "
        "map the whole name in labels",
    )
    assert words.label_of(["malignant", "2019", "benign"]) == Problem(
        "ambiguous-folder",
        "its folders 'malignant' and 'benign' say malignant and benign; keep the images in folders "
        "of one label",
    )
    assert words.label_of([]).rule == "no-label"  # type: ignore[union-attr]
