from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_generator import Workspace

from dermaflux.generators.flux_lora.model import pipeline
from dermaflux.generators.flux_lora.model.options import PromptPadding
from dermaflux.generators.flux_lora.model.prompt_padding import ResidentText, text_lengths
from dermaflux.generators.flux_lora.training import text_cache
from dermaflux.generators.flux_lora.training.text_cache import cache_text

CPU = torch.device("cpu")
PROMPTS = [
    f"This is an image containing a {label} lesion. {'The border of the mole is smooth. ' * count}"
    for label in ("benign", "malignant")
    for count in (0, 1, 2, 9, 90)
]


@pytest.fixture(scope="module")
def pipe(workspace: Workspace):
    return pipeline.load(workspace.backbone, "fp32", CPU)


def without_encoders():
    raise AssertionError("nothing is missing, so no encoder is needed")


@pytest.mark.parametrize("policy", ["trim", "pad512"])
def test_cached_text_is_resident_text_bit_for_bit(
    pipe, policy: PromptPadding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    lengths = text_lengths(pipe, PROMPTS, policy)
    assert len(set(lengths)) == (4 if policy == "trim" else 1)
    cache_text(lambda: pipe, "tiny", PROMPTS[:3], lengths[:3], CPU)
    cache_text(lambda: pipe, "tiny", PROMPTS[:7], lengths[:7], CPU, rank=1, world=2)
    cache_text(lambda: pipe, "tiny", PROMPTS, lengths, CPU)
    cached = cache_text(without_encoders, "tiny", PROMPTS[::-1], lengths[::-1], CPU)
    resident = ResidentText(pipe)
    for length in set(lengths):
        group = [one for one, own in zip(PROMPTS, lengths, strict=True) if own == length]
        for prompts in (group, group[:1], [*group[::-1], group[0]]):
            found, expected = cached(prompts, length), resident(prompts, length)
            for name in ("tokens", "pooled", "ids"):
                assert torch.equal(getattr(found, name), getattr(expected, name))
    with pytest.raises(KeyError):
        cached([PROMPTS[0]], 496)
    with pytest.raises(AssertionError, match="no encoder is needed"):
        cache_text(without_encoders, "other weights", PROMPTS, lengths, CPU)
    on_disk = sum(path.stat().st_size for path in (tmp_path / ".dermaflux").rglob("*.safetensors"))
    groups = {n: [p for p, own in zip(PROMPTS, lengths, strict=True) if own == n] for n in lengths}
    assert on_disk == pytest.approx(text_cache._size(pipe, groups), rel=0.02)
