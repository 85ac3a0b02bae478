from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_adapter import awakened_backbone, draw_generator
from small_generator import Workspace

from dermaflux.generators.flux_lora.model import pipeline, prompt_padding
from dermaflux.generators.flux_lora.model.options import PromptPadding
from dermaflux.generators.flux_lora.sampling.load import open_generator
from dermaflux.generators.flux_lora.sampling.sample import SamplingSettings, sample
from dermaflux.generators.protocol import Condition

PROMPTS = [
    "a malignant lesion",
    "a benign lesion with " + "an irregular border and four colors, " * 5 + "on light skin",
    "a benign lesion",
    "a malignant lesion with " + "asymmetry in two axes and " * 3 + "mainly black colors",
]
SEEDS = [11, 2**62 + 1, 0, 7]
CONDITIONS = [
    Condition("malignant" if "malignant" in prompt else "benign", prompt, 128, seed)
    for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
]


def _levels(image: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(image.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("padding", ["trim", "pad512"])
def test_batched_equals_one_by_one_and_the_pipeline_itself(
    workspace: Workspace, tmp_path: Path, padding: PromptPadding
) -> None:
    backbone = awakened_backbone(workspace.backbone, tmp_path / "backbone")
    folder = draw_generator(backbone, tmp_path / "generator", "all-linear", padding)
    merged = open_generator(folder, backbone, "fp32")
    settings = SamplingSettings(3, 3.5, padding)
    together = sample(merged, settings, CONDITIONS)
    assert together.shape == (4, 128, 128, 3)
    assert ((together > 0) & (together < 255)).mean() > 0.5  # else nothing could differ
    lengths = prompt_padding.text_lengths(merged, PROMPTS, padding)
    assert len(set(lengths)) == (3 if padding == "trim" else 1)

    reference = pipeline.load(backbone, "fp32", torch.device("cpu"))
    plain = sample(reference, settings, CONDITIONS[:1])[0]
    assert _levels(plain, together[0]) > 20  # the adapter matters
    reference.load_lora_weights(str(folder))
    for index, condition in enumerate(CONDITIONS):
        alone = sample(merged, settings, [condition])[0]
        assert _levels(alone, together[index]) <= 1
        theirs = reference(
            prompt=condition.prompt,
            height=128,
            width=128,
            num_inference_steps=3,
            guidance_scale=3.5,
            generator=torch.Generator().manual_seed(condition.seed),
            max_sequence_length=lengths[index],
            output_type="np",
        ).images[0]
        assert _levels(np.rint(theirs * 255), together[index]) <= 1


def test_a_text_source_encodes_each_length_once(workspace: Workspace) -> None:
    pipe = pipeline.load(workspace.backbone, "fp32", torch.device("cpu"))
    calls = []

    class Source(prompt_padding.ResidentText):
        def __call__(self, prompts, length):  # type: ignore[no-untyped-def]
            calls.append((length, list(prompts)))
            return super().__call__(prompts, length)

    settings = SamplingSettings(1, 3.5, "trim")
    images = sample(pipe, settings, CONDITIONS, Source(pipe))
    assert [prompt for _, prompts in calls for prompt in sorted(prompts)] == sorted(
        PROMPTS, key=lambda text: (prompt_padding.text_lengths(pipe, [text], "trim")[0], text)
    )
    assert [length for length, _ in calls] == sorted({length for length, _ in calls})
    assert (images == sample(pipe, settings, CONDITIONS)).all()
