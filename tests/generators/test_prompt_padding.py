from __future__ import annotations

import pytest
import torch
from small_generator import Workspace

from dermaflux.generators.flux_lora.model import pipeline, prompt_padding
from dermaflux.generators.flux_lora.model.prompt_padding import (
    clip_cut,
    encode,
    text_length,
    text_lengths,
)

SHORT = "This is an image containing a benign lesion."
LONG = f"{SHORT} {'The border of the mole is smooth. ' * 14}"
LATE = f"{'The mole shows a notable asymmetry. ' * 16}This is a malignant lesion."
VERY_LONG = "The mole shows a slight asymmetry. " * 120


@pytest.fixture(scope="module")
def pipe(workspace: Workspace):
    return pipeline.load(workspace.backbone, "fp32", torch.device("cpu"))


def test_lengths_round_up_to_16_and_end_at_512() -> None:
    lengths = {n: text_length(n, "trim") for n in (1, 16, 17, 160, 161, 512, 513, 9000)}
    assert lengths == {
        **{1: 16, 16: 16, 17: 32, 160: 160, 161: 176},
        **{512: 512, 513: 512, 9000: 512},
    }
    assert text_length(3, "pad512") == text_length(900, "pad512") == 512


def test_a_length_belongs_to_the_prompt_and_never_to_its_batch(pipe) -> None:
    prompts = [SHORT, LONG, VERY_LONG]
    together = text_lengths(pipe, prompts, "trim")
    assert together == [text_lengths(pipe.tokenizer_2, [one], "trim")[0] for one in prompts]
    counts = [len(pipe.tokenizer_2(one).input_ids) for one in prompts]
    assert all(0 <= n - count < 16 for n, count in zip(together[:2], counts[:2], strict=True))
    assert (counts[2] > 512, together[2]) == (True, 512)
    assert text_lengths(pipe, prompts, "pad512") == [512] * 3


@pytest.mark.parametrize("length", [32, 512])
def test_padding_is_seen_by_t5_unmasked_as_flux_uses_it(pipe, length) -> None:
    text = encode(pipe, [SHORT], length)
    ids = pipe.tokenizer_2(SHORT).input_ids
    padded = torch.tensor([ids + [pipe.tokenizer_2.pad_token_id] * (length - len(ids))])
    with torch.no_grad():
        states = pipe.text_encoder_2(padded)[0]
        masked = pipe.text_encoder_2(padded, attention_mask=(padded != 0).long())[0]
    torch.testing.assert_close(text.tokens, states, atol=1e-5, rtol=0)
    assert float((states - masked).abs().max()) > 1e-3
    assert text.tokens.shape[1] == length
    assert not text.ids.any()
    assert not text.tokens.requires_grad


def test_the_longest_length_is_the_pipelines_own_default(pipe) -> None:
    prompts = [SHORT, LONG]
    text = encode(pipe, prompts, prompt_padding.LIMIT)
    with torch.no_grad():
        tokens, pooled, ids = pipe.encode_prompt(prompt=prompts)
    assert torch.equal(text.tokens, tokens)
    assert torch.equal(text.pooled, pooled)
    assert torch.equal(text.ids, ids)


def test_captions_whose_class_word_clip_never_reads_are_named(pipe) -> None:
    prompts = [SHORT, LONG, LATE, VERY_LONG]
    found = clip_cut(pipe.tokenizer, prompts)
    assert (found.limit, found.prompts) == (77, 4)
    assert found.cut == (1, 2, 3)
    assert found.class_lost == (2,)
    # Second route: the pooled state, which sees no difference where the word is out of sight.
    for place, seen in ((1, True), (2, False)):
        swapped = prompts[place].replace("benign", "@").replace("malignant", "benign")
        both = encode(pipe, [prompts[place], swapped.replace("@", "malignant")], 512).pooled
        assert bool((both[0] != both[1]).any()) is seen
    sentence = found.warning(["a", "b", "isic/late", "d"])
    assert sentence is not None
    assert "1 of 4 captions such as isic/late" in sentence
    assert "77 tokens" in sentence
    assert clip_cut(pipe.tokenizer, prompts[:2]).warning(["a", "b"]) is None
