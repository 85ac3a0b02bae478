from __future__ import annotations

import itertools

import pytest
from hand_labelled import CAPTIONS

from dermaflux.captions.lesion.abc_rule import REFERENCE_COLOURS
from dermaflux.captions.lesion.measured import Measurements
from dermaflux.captions.text.description import describe
from dermaflux.captions.text.quality import (
    FAULTS,
    VISUAL_ATTRIBUTES,
    contradicts,
    faults,
    normalised,
)
from dermaflux.validation import caption_suite

GOOD = (
    "The mole is slightly asymmetrical, with one half larger than the other. Its border is "
    "irregular and blends into the surrounding skin. The color varies from tan to dark brown."
)
# Text -> the faults it has.
ANSWERS = {
    "I'm sorry, but I can't assist with medical images.": {"refusal"},
    "I\u2019m not able to provide a diagnosis from this photograph.": {"refusal"},
    "As an AI language model, I cannot view pictures. " + GOOD: {"refusal"},
    "": {"empty"},
    "  \n ** ": {"empty"},
    GOOD: set(),
    f"{GOOD} I can't see any asymmetry in the pigment network.": set(),
    f"{GOOD} I am not a doctor.": set(),
    "The mole is symmetrical and its color is a uniform brown.": {"no border"},
    "The border is smooth and the color is brown.": {"no asymmetry"},
    "The mole is symmetrical with well-defined edges.": {"no colour"},
    "**Asymmetry:** none\n* **Border:** smooth\n* **Color:** tan": set(),
    "El lunar muestra una asimetría leve; el borde es irregular y el color es marrón con negro.": {
        "not English",
        "no asymmetry",
        "no border",
    },
    "Das Muttermal zeigt eine leichte Asymmetrie und der Rand ist nicht gleichmäßig.": {
        "not English",
        "no border",
        "no colour",
    },
    f"{GOOD} この病変は不規則な境界を示しています。": {"not English"},
    f"{GOOD} {GOOD}": {"repetitive"},
    GOOD + " irregular irregular irregular irregular irregular.": {"repetitive"},
    GOOD + " The border" + " is uneven and the border" * 9 + " is uneven.": {"repetitive"},
}


@pytest.mark.parametrize("text", ANSWERS)
def test_each_kind_of_fault_is_detected_and_good_texts_pass(text):
    detected = set(faults(text, "benign", "stop"))
    if "refusal" in ANSWERS[text]:
        detected -= {"no asymmetry", "no border", "no colour"}
    assert detected == ANSWERS[text]


@pytest.mark.parametrize("caption", CAPTIONS, ids=lambda caption: caption.text[:30])
def test_captions_have_the_faults_that_a_person_finds(caption, request):
    if "sharply demarcated" in caption.text:
        reason = "the border is described without a word for it"
        request.node.add_marker(pytest.mark.xfail(strict=True, reason=reason))
    assert set(faults(caption.text, caption.label, "stop")) == caption.faults
    # Of an image of the other class, the same words contradict the label, or no longer do.
    other = {"benign": "malignant", "malignant": "benign"}[caption.label]
    contradicted = "contradicts label" in faults(caption.text, other, "stop")
    assert not (contradicted and "contradicts label" in caption.faults)


def test_a_text_has_to_mention_what_its_prompt_asked_for():
    text = "A small oval patch with a rough surface, dark brown, that fills a third of the image."
    assert faults(text, "benign", "stop", VISUAL_ATTRIBUTES) == ()
    assert faults(text, "benign", "stop") == ("no asymmetry", "no border")
    assert faults("It is dark brown.", "benign", "stop", VISUAL_ATTRIBUTES) == (
        "no shape",
        "no size",
        "no texture",
    )


def test_truncation_follows_from_the_finish_or_where_that_is_unknown_from_the_end():
    cut = GOOD + " Furthermore, the"
    assert faults(GOOD, "benign", "length") == ("truncated",)
    assert faults(cut, "benign", None) == ("truncated",)
    assert faults(cut, "benign", "stop") == faults(GOOD, "benign", None) == ()
    assert "refusal" in faults(GOOD, "benign", "refusal")


# Sentence -> the class it asserts of its lesion, None for neither.
CLASSES = {
    "This is an image containing a benign lesion.": "benign",
    "These features are consistent with a malignant lesion.": "malignant",
    "The appearance is suspicious for melanoma.": "malignant",
    "It looks like a basal cell carcinoma.": "malignant",
    "It is a non-cancerous growth.": "benign",
    "The mole is benign and not malignant.": "benign",
    "There are no signs of asymmetry, border irregularity or malignancy.": "benign",
    "There is no evidence that the mole is malignant.": "benign",
    "Malignancy is unlikely.": "benign",
    "The mole does not appear to be benign.": "malignant",
    "It isn't benign.": "malignant",
    "The mole is not symmetrical and is malignant.": "malignant",
    "It is not only irregular but malignant.": "malignant",
    "Irregular borders can be a sign of melanoma.": None,
    "Further evaluation is needed to rule out malignancy.": None,
    "Benign moles are typically symmetrical.": None,
    "The border is smooth.": None,
}


@pytest.mark.parametrize("text", CLASSES)
def test_a_text_contradicts_every_label_but_the_class_it_asserts(text):
    for label in ("benign", "malignant", "indeterminate"):
        assert contradicts(text, label) == (CLASSES[text] not in (None, label)), label


def test_no_sentence_of_the_measured_captioner_has_a_fault():
    colours = tuple(REFERENCE_COLOURS)
    levels = itertools.product((0.02, 0.13, 0.3), (0.01, 0.06, 0.1, 0.3), range(1, 6))
    measured = [Measurements(a, b, colours[:n], 0.5) for a, b, n in levels]
    measured += [Measurements(), Measurements(None, None, ("red",), 0.9)]
    for number, measurements in enumerate(measured):
        for label in ("benign", "malignant", "indeterminate"):
            text = describe(measurements, label, f"x/{number}")
            assert faults(text, label) == (), text


def test_names_fit_the_table_and_the_suite():
    assert not any("," in name for name in FAULTS)
    assert FAULTS == caption_suite.FAULTS
    assert normalised("The BORDER  is\nsmooth!") == normalised("the border is smooth")
