from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from skimage.color import rgb2lab

from dermaflux.corpus.decoding import skin_tone
from dermaflux.phantom import draw, render

BROWN_SKIN = (142, 100, 80)


def _base_angle(tone: int) -> float:
    from dermaflux.phantom.render import _SKIN

    pixel = np.array(_SKIN[tone - 1], dtype=np.uint8)[None, None]
    lightness, _, yellow = rgb2lab(pixel)[0, 0]
    return skin_tone.typology_angle(lightness, yellow)


def test_lab_is_that_of_scikit_image():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert np.allclose(skin_tone.lab(pixels), rgb2lab(pixels), atol=0.05)


def test_angle_is_the_arctangent_of_the_formula():
    assert skin_tone.typology_angle(70.0, 20.0) == pytest.approx(45.0)
    assert skin_tone.typology_angle(50.0, 15.0) == 0.0
    assert skin_tone.typology_angle(30.0, 20.0 / np.sqrt(3)) == pytest.approx(-60.0)
    assert skin_tone.typology_angle(70.0, -3.0) == 90.0  # no skin is blue


def test_pairs_meet_at_the_published_limits():
    assert [skin_tone.fitzpatrick_pair(a) for a in (90, 41.1, 41, 10.1, 10, -60)] == [
        *("I-II", "I-II", "III-IV", "III-IV", "V-VI", "V-VI")
    ]


def test_phantom_lesions_have_the_tone_they_were_rendered_with():
    lesions = [draw(index, "skin-tone-test") for index in range(150)]
    skins = [skin_tone.skin_around(render(lesion, 128, 160)) for lesion in lesions]
    measured = [
        (lesion.tone, skin_tone.typology_angle(*skin))
        for lesion, skin in zip(lesions, skins, strict=True)
        if skin is not None
    ]
    assert len(measured) > 0.9 * len(lesions)
    tones, angles = zip(*measured, strict=True)
    pairs = [skin_tone.fitzpatrick_pair(angle) for angle in angles]
    truth = [skin_tone.fitzpatrick_pair(_base_angle(tone)) for tone in tones]
    assert np.mean([a == b for a, b in zip(pairs, truth, strict=True)]) > 0.85
    assert spearmanr(tones, angles).statistic < -0.9
    errors = [abs(angle - _base_angle(tone)) for tone, angle in measured]
    assert np.median(errors) < 8


def test_lesion_frame_hair_and_size_do_not_change_the_tone():
    clean = np.full((200, 300, 3), BROWN_SKIN, dtype=np.uint8)
    dirty = clean.copy()
    dirty[60:140, 100:200] = (60, 30, 20)
    dirty[:, :24] = dirty[:, -24:] = 0
    dirty[::9] = 40
    dirty[150:160, 30:60] = 255
    assert skin_tone.skin_around(dirty) == skin_tone.skin_around(clean)
    assert skin_tone.measured(clean) == skin_tone.measured(np.tile(clean, (4, 4, 1))) == "V-VI"


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (230, 140, 190), (60, 90, 200)]
)
def test_what_is_not_skin_has_no_tone(colour):
    assert skin_tone.measured(np.full((64, 80, 3), colour, dtype=np.uint8)) is None


def test_skin_behind_a_thicket_of_hair_has_no_tone():
    hairy = np.full((96, 96, 3), (220, 180, 160), dtype=np.uint8)
    hairy[np.arange(96) % 5 < 3] = 45
    assert skin_tone.measured(hairy) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 5)])
def test_tiny_images_are_measured(shape):
    assert skin_tone.measured(np.full((*shape, 3), BROWN_SKIN, dtype=np.uint8)) in (None, "V-VI")
