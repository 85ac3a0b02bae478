from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_adapter import awakened_backbone, draw_generator
from small_generator import Workspace

from dermaflux.generators.flux_lora.model import pipeline, prompt_padding
from dermaflux.generators.flux_lora.sampling.load import open_generator
from dermaflux.generators.flux_lora.sampling.sample import Sampler, sample

PROMPTS = [
    "a malignant lesion",
    "a benign lesion with " + "an irregular border and four colors, " * 5 + "on light skin",
    "a benign lesion",
    "a malignant lesion with " + "asymmetry in two axes and " * 3 + "mainly black colors",
]
SEEDS = [11, 2**62 + 1, 0, 7]


def _levels(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("policy", ["trim", "pad512"])
def test_batched_equals_one_by_one_and_the_pipeline_itself(
    workspace: Workspace, tmp_path: Path, policy: prompt_padding.Policy
) -> None:
    backbone = awakened_backbone(workspace.backbone, tmp_path / "backbone")
    folder = draw_generator(backbone, tmp_path / "generator", "all-linear", policy)
    merged = open_generator(folder, backbone, "fp32")
    sampler = Sampler(3, 3.5, 128, policy)
    together = sample(merged, sampler, PROMPTS, SEEDS)
    assert together.shape == (4, 128, 128, 3)
    assert ((together > 0) & (together < 255)).mean() > 0.5  # else nothing could differ
    lengths = prompt_padding.text_lengths(merged, PROMPTS, policy)
    assert len(set(lengths)) == (3 if policy == "trim" else 1)

    reference = pipeline.load(backbone, "fp32", torch.device("cpu"))
    plain = sample(reference, sampler, PROMPTS[:1], SEEDS[:1])[0]
    assert _levels(plain, together[0]) > 20  # the adapter matters
    reference.load_lora_weights(str(folder))
    for place, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        alone = sample(merged, sampler, [prompt], [seed])[0]
        assert _levels(alone, together[place]) <= 1
        theirs = reference(
            prompt=prompt,
            height=128,
            width=128,
            num_inference_steps=3,
            guidance_scale=3.5,
            generator=torch.Generator().manual_seed(seed),
            max_sequence_length=lengths[place],
            output_type="np",
        ).images[0]
        assert _levels(np.rint(theirs * 255), together[place]) <= 1


def test_a_given_text_source_encodes_each_length_once(workspace: Workspace) -> None:
    pipe = pipeline.load(workspace.backbone, "fp32", torch.device("cpu"))
    asked = []

    class Source(prompt_padding.ResidentText):
        def __call__(self, prompts, length):  # type: ignore[no-untyped-def]
            asked.append((length, list(prompts)))
            return super().__call__(prompts, length)

    sampler = Sampler(1, 3.5, 128, "trim")
    given = sample(pipe, sampler, PROMPTS, SEEDS, Source(pipe))
    assert [one for _, prompts in asked for one in sorted(prompts)] == sorted(
        PROMPTS, key=lambda one: (prompt_padding.text_lengths(pipe, [one], "trim")[0], one)
    )
    assert [length for length, _ in asked] == sorted({length for length, _ in asked})
    assert (given == sample(pipe, sampler, PROMPTS, SEEDS)).all()
