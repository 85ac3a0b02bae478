"""A randomly initialised vision model of a few million weights, saved as its real sibling is.

Same classes, special tokens and template behaviour as meta-llama/Llama-3.2-11B-Vision-Instruct
(../shared/datasets.md, C.1); the tokenizer is trained here.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
from transformers.models.mllama.image_processing_mllama import MllamaImageProcessor

from dermaflux.captions import prompts
from dermaflux.captions.measured import Measurements, describe

BEGIN, END, PAD, IMAGE = "<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>", "<|image|>"
SPECIAL = [BEGIN, "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", END, PAD]
SPECIAL += ["<|python_tag|>", IMAGE]
TILE = 56

TEMPLATE = """\
{{- bos_token -}}
{%- set date = date_string if date_string is defined else strftime_now("%d %b %Y") -%}
{%- set seen = namespace(images=false) -%}
{%- for message in messages -%}
{%- for part in message.content -%}
{%- if part.type == "image" -%}{%- set seen.images = true -%}{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if seen.images and messages[0].role == "system" -%}
{{- raise_exception("Prompting with images is incompatible with system messages.") -}}
{%- endif -%}
{%- if not seen.images -%}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date + "\\n\\n<|eot_id|>" -}}
{%- endif -%}
{%- for message in messages -%}
{{- "<|start_header_id|>" + message.role + "<|end_header_id|>\\n\\n" -}}
{%- if message.content is string -%}{{- message.content -}}{%- else -%}
{%- for part in message.content -%}
{{- "<|image|>" if part.type == "image" else part.text -}}
{%- endfor -%}
{%- endif -%}
{{- "<|eot_id|>" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" -}}
{%- endif -%}
"""


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with Llama's special tokens; `<|image|>` is the last id, beyond the head."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [prompts.FIRST_IMPRESSION, prompts.THINK_TWICE, prompts.FINAL_DESCRIPTION]
    texts += [prompts.abc_question(label) for label in ("benign", "malignant")]
    texts += [describe(Measurements(0.1, 0.1, ("red",), 0.4), "benign", str(i)) for i in range(20)]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )  # fmt: skip
    bpe.add_special_tokens(SPECIAL)
    # Encoding plain text puts the begin token in front, as Llama's tokenizer does: the trap.
    from tokenizers.processors import TemplateProcessing

    begin = (BEGIN, bpe.token_to_id(BEGIN))
    bpe.post_processor = TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BEGIN, eos_token=END, pad_token=PAD
    )


def save(folder: Path, seed: int = 0) -> Path:
    """Write processor and weights of a three-million-parameter Mllama."""
    words = tokenizer()
    ids = {name: words.convert_tokens_to_ids(name) for name in (BEGIN, END, PAD, IMAGE)}
    text = MllamaTextConfig(
        vocab_size=len(words) - 1, hidden_size=192, intermediate_size=512, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=2, cross_attention_layers=[1, 4],
        max_position_embeddings=4096, bos_token_id=ids[BEGIN], eos_token_id=ids[END],
        pad_token_id=ids[PAD],
    )  # fmt: skip
    vision = MllamaVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_global_layers=1,
        attention_heads=4, image_size=TILE, patch_size=14, intermediate_layers_indices=[0],
        vision_output_dim=128,
    )  # fmt: skip
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=ids[IMAGE])
    torch.manual_seed(seed)
    model = MllamaForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Freshly initialised, the gates are closed and no image would change a word.
            if name.endswith(("attn_gate", "mlp_gate")):
                weight.fill_(1.0)
            elif weight.dim() == 2:
                weight.mul_(5.0)  # steeper logits: greedy choices do not hang on rounding
    model.generation_config = GenerationConfig(
        bos_token_id=ids[BEGIN], eos_token_id=[ids[END]], pad_token_id=ids[PAD],
        do_sample=True, temperature=0.6, top_p=0.9,
    )  # fmt: skip
    model.save_pretrained(folder)
    pictures = MllamaImageProcessor(size={"height": TILE, "width": TILE}, max_image_tiles=4)
    MllamaProcessor(pictures, words, chat_template=TEMPLATE).save_pretrained(folder)
    return folder


def picture(seed: int, width: int = 64, height: int = 64) -> bytes:
    """A PNG of coloured noise in blocks, so that pictures differ at every scale."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()
