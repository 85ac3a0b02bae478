"""Image-text scoring against the formula of CLIP, on a network of two small tables."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dermaflux.classifiers.zero_shot import image_text
from dermaflux.classifiers.zero_shot.image_text import ImageTextModel

EMBEDDING = {
    "a mole": [3.0, 0.0, 0.0],
    "a nevus": [0.0, 2.0, 0.0],
    "a melanoma": [0.0, 0.0, 5.0],
}
SCALE = 7.0


def model() -> ImageTextModel:
    """Embeds sentences by a table, and an "image", three numbers, as itself."""
    network = SimpleNamespace(
        encode_text=lambda tokens: tokens,
        encode_image=lambda pixels: pixels,
        logit_scale=torch.tensor(SCALE).log(),
    )
    return ImageTextModel(
        network,
        torch.tensor,
        lambda sentences: torch.tensor([EMBEDDING[sentence] for sentence in sentences]),
        torch.device("cpu"),
    )


def test_every_phrasing_goes_into_every_template() -> None:
    sentences = image_text.sentences(["mole", "nevus"], ["a {c}", "{c}, or {c}"])
    assert sorted(sentences) == ["a mole", "a nevus", "mole, or mole", "nevus, or nevus"]


def test_a_class_is_the_mean_direction_of_its_sentences() -> None:
    features = image_text.class_features(model(), [["a mole", "a nevus"], ["a melanoma"]])
    half = 0.5**0.5  # the lengths 3 and 2 do not matter
    assert features.numpy() == pytest.approx(np.array([[half, half, 0], [0, 0, 1]]), abs=1e-6)


def test_probabilities_are_the_softmax_of_scaled_cosines_in_any_batch() -> None:
    features = torch.eye(3)[:2]
    images = [[1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [2.0, 2.0, 1.0]]
    cosines = np.array([[1, 0], [0, 1], [2 / 3, 2 / 3]])
    powers = np.exp(SCALE * cosines)
    expected = powers / powers.sum(axis=1, keepdims=True)
    for batch in (1, 2, 5):
        scores = image_text.probabilities(model(), features, images, batch)
        assert scores == pytest.approx(expected, abs=1e-6)
    assert image_text.probabilities(model(), features, [], 2).shape == (0, 2)
