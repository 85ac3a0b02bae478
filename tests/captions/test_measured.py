from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from dermaflux.captions.lesion import abc_rule
from dermaflux.captions.lesion.measured import Measurements, measure
from dermaflux.captions.lesion.segmentation import segment
from dermaflux.captions.text.description import describe
from dermaflux.phantom import draw, render

GRID_Y, GRID_X = np.mgrid[0:128, 0:128] - 63.5


def _image(mask: np.ndarray, lesion=(106, 60, 38), skin=(226, 184, 162)) -> np.ndarray:
    image = np.where(mask[..., None], lesion, skin).astype(float)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _star(depth: float, teeth: int) -> np.ndarray:
    angle = np.arctan2(GRID_Y, GRID_X)
    return np.hypot(GRID_X, GRID_Y) < 40 * (1 + depth * np.cos(teeth * angle))


def test_asymmetry_index_of_shapes_with_known_symmetry():
    ellipse = (GRID_X / 50) ** 2 + (GRID_Y / 30) ** 2 < 1
    angle = np.deg2rad(37)
    along = GRID_X * np.cos(angle) + GRID_Y * np.sin(angle)
    across = GRID_Y * np.cos(angle) - GRID_X * np.sin(angle)
    turned = (along / 50) ** 2 + (across / 30) ** 2 < 1
    triangle = (GRID_Y < 35) & (2 * np.abs(GRID_X) - 45 < GRID_Y)
    cap = (np.hypot(GRID_X, GRID_Y) < 45) & (GRID_X + 0.7 * GRID_Y < 0) & (GRID_Y > -25)
    assert abc_rule.asymmetry_index(ellipse) < 0.03
    # The nearest axes looked at are up to 2.5 degrees off.
    assert abc_rule.asymmetry_index(turned) < 0.05
    # A triangle matches about one axis only, the cap about none.
    assert 0.1 < abc_rule.asymmetry_index(triangle) < 0.25
    assert abc_rule.asymmetry_index(cap) > abc_rule.asymmetry_index(ellipse) + 0.1


def test_border_irregularity_matches_the_length_of_a_known_curve():
    angle = np.linspace(0, 2 * np.pi, 100001)
    radius = 40 * (1 + 0.15 * np.cos(14 * angle))
    curve = radius * np.exp(1j * angle)
    expected = 1 - 2 * np.pi * 40 / np.abs(np.diff(curve)).sum()
    assert abc_rule.border_irregularity(_star(0.15, 14)) == pytest.approx(expected, abs=0.05)
    assert abc_rule.border_irregularity(_star(0.0, 1)) < 0.02
    # An ellipse is not irregular, though its perimeter^2 / area is far from a circle's.
    assert abc_rule.border_irregularity((GRID_X / 55) ** 2 + (GRID_Y / 20) ** 2 < 1) < 0.03


def test_colours_and_diameter_of_a_drawn_lesion():
    disc = np.hypot(GRID_X, GRID_Y) < 32
    image = _image(disc)
    image[disc & (GRID_X > 8)] = (36, 27, 28)
    measurements = measure(image)
    assert measurements.colours == ("dark brown", "black")
    assert measurements.diameter_fraction == pytest.approx(0.5, abs=0.03)
    assert measurements.asymmetry is not None
    assert measurements.asymmetry < 0.05
    larger = measure(image.repeat(3, axis=0).repeat(3, axis=1))
    assert larger.diameter_fraction == pytest.approx(measurements.diameter_fraction, abs=0.02)
    assert larger.colours == measurements.colours


def test_hair_ruler_and_black_corners_are_not_lesion():
    disc = np.hypot(GRID_X, GRID_Y) < 25
    image = _image(disc)
    for offset in (-50, -20, 30):
        rows = np.arange(128)
        image[rows, np.clip(rows + offset, 0, 127)] = (30, 25, 25)
    image[120:, 4::8] = 40
    image[np.hypot(GRID_X, GRID_Y) > 72] = 5
    lesion = segment(image)
    assert lesion is not None
    assert (lesion.mask & disc).sum() / (lesion.mask | disc).sum() > 0.85


def test_a_bright_patch_of_the_lamp_is_not_the_lesion_inside_it():
    distance = np.hypot(GRID_X, GRID_Y)
    skin = _image(distance < 0, skin=(176, 124, 104)).astype(float)
    lit = np.clip(skin + 25 * np.exp(-((distance / 38) ** 4))[..., None], 0, 255)
    assert measure(lit.astype(np.uint8)).colours is None
    disc = distance < 11
    image = np.where(disc[..., None], lit - (120, 100, 80), lit).astype(np.uint8)
    lesion = segment(image)
    assert lesion is not None
    assert (lesion.mask & disc).sum() / (lesion.mask | disc).sum() > 0.6


@pytest.mark.parametrize("value", [0, 128, 255])
def test_images_without_a_lesion_give_null_numbers_and_a_caption_that_says_so(value):
    flat = np.full((150, 200, 3), value, dtype=np.uint8)
    assert measure(flat) == Measurements()
    caption = describe(measure(flat), "benign", "a/1")
    assert "cannot be told" in caption
    assert caption.startswith("This is an image containing a benign lesion.")


def test_noise_is_not_a_lesion_and_a_cut_off_lesion_has_no_shape():
    noise = np.random.default_rng(1).normal(170, 4, (128, 128, 3)).clip(0, 255).astype(np.uint8)
    assert measure(noise) == Measurements()
    cut = measure(_image(np.hypot(GRID_X + 63, GRID_Y) < 40))
    assert cut.asymmetry is None
    assert cut.border_irregularity is None
    assert cut.colours == ("dark brown",)
    assert "beyond the picture" in describe(cut, "malignant", "a/2")


def test_captions_have_one_word_per_level_and_vary_with_the_id_only():
    levels = {
        "asymmetry": [(0.02, "symmetrical"), (0.13, "slight"), (0.3, "notable")],
        "border": [(0.01, "smooth"), (0.06, "notches"), (0.1, "uneven"), (0.3, "jagged")],
        "colour": [(("red",), "uniform"), (("red", "black", "white"), "three")],
    }
    for a, a_word in levels["asymmetry"]:
        for b, b_word in levels["border"]:
            for c, c_word in levels["colour"]:
                measurements = Measurements(a, b, c, 0.5)
                captions = {describe(measurements, "benign", f"x/{i}") for i in range(100)}
                assert len(captions) > 15
                for caption in captions:
                    words = caption.lower().replace(",", "").replace(".", "").split()
                    assert 20 <= len(words) <= 60
                    present = {
                        word for values in levels.values() for _, word in values if word in words
                    }
                    assert present == {a_word, b_word, c_word}
    assert describe(Measurements(), "indeterminate", "x").startswith(
        "This is an image containing an indeterminate lesion."
    )


@pytest.mark.slow
def test_measurements_rank_phantom_lesions_by_their_known_attributes():
    lesions = [draw(index, "test-captions") for index in range(320)]
    measured = [measure(render(lesion, 128, 128)) for lesion in lesions]
    seen = [i for i, measurements in enumerate(measured) if measurements.asymmetry is not None]
    assert len(seen) > 0.95 * len(lesions)
    ranks = {
        "asymmetry": ([measured[i].asymmetry for i in seen], [lesions[i].asymmetry for i in seen]),
        "border": (
            [measured[i].border_irregularity for i in seen],
            [lesions[i].border for i in seen],
        ),
        "colours": (
            [len(measured[i].colours or ()) for i in seen],
            [len(lesions[i].colours) for i in seen],
        ),
    }
    for name, (values, known) in ranks.items():
        assert spearmanr(values, known).statistic >= 0.8, name
