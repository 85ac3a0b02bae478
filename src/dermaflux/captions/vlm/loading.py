"""Opens a vision-language repository, a hub id or a local folder; fails early with the reason.

Reads the hub's cache or the folder. Writes nothing of its own.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dermaflux.core import hub
from dermaflux.core.devices import device_name, free_memory, require_gpu
from dermaflux.core.hashing import folder_digest
from dermaflux.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SUGGESTION = "meta-llama/Llama-3.2-11B-Vision-Instruct"
# Left unset, transformers asks on the terminal whether to run a repository's code.
_NO_CODE: dict[str, Any] = {"trust_remote_code": False}
_HEADROOM = 1.1  # of the weights, for activations and the keys and values of one small batch
_INSTEAD = (
    "set caption.model to a folder saved by transformers, or to a hub id such as "
    f"{SUGGESTION} while the hub can be reached"
)


def _opening(model: str, revision: str | None) -> AbstractContextManager[None]:
    return hub.opening("caption.model", model, revision, "folder", _INSTEAD)


def commit(model: str, revision: str | None) -> str | None:
    """The commit to open of a hub repository; None for a folder.

    Raises `InputError` for a hub id without revision, or with one that cannot be looked up.
    """
    if Path(model).is_dir():
        return None
    if revision is None:
        raise InputError(hub.unpinned("caption.model", model, "caption.revision"))
    return hub.commit("caption.model", model, revision, "config.json", _INSTEAD)


def configuration(model: str, revision: str | None) -> PreTrainedConfig:
    """The model's configuration; `InputError` when absent, gated, or of a model without vision."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    with _opening(model, revision):
        config: PreTrainedConfig = AutoConfig.from_pretrained(model, revision=revision, **_NO_CODE)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise InputError(
            f"caption.model {model} is a {config.model_type} model, which takes no images; name a "
            f"vision-language model such as {SUGGESTION}"
        )
    return config


def processor(model: str, revision: str | None) -> ProcessorMixin:
    """Tokenizer, image processor and chat template, set to pad on the left.

    A decoder continues at the right end of the prompt, so the padding has to be on the left.
    """
    from transformers import AutoProcessor

    with _opening(model, revision):
        opener: Any = AutoProcessor
        loaded: ProcessorMixin = opener.from_pretrained(model, revision=revision, **_NO_CODE)
    if getattr(loaded, "image_processor", None) is None:
        raise InputError(
            f"caption.model {model} has no image processor; name a vision-language model such as "
            f"{SUGGESTION}"
        )
    if not loaded.chat_template:
        raise InputError(
            f"caption.model {model} has no chat template, as base models have none; name an "
            f"instruction-tuned one such as {SUGGESTION}"
        )
    loaded.tokenizer.padding_side = "left"
    if loaded.tokenizer.pad_token is None:
        loaded.tokenizer.pad_token = loaded.tokenizer.eos_token
    return loaded


def identity(model: str, commit: str | None) -> str:
    """Changes when the weights change: repository@commit, or folder name@hash of its files."""
    if commit is not None:
        return f"{model}@{commit}"
    folder = Path(model)
    return f"{folder.name}@{folder_digest(folder)[:16]}"


def parameters(config: PreTrainedConfig) -> int:
    """Number of weights, counted on a model without storage."""
    from transformers import AutoModelForImageTextToText

    opener: Any = AutoModelForImageTextToText
    with torch.device("meta"):
        return int(opener.from_config(config).num_parameters())


def fits(model: str, config: PreTrainedConfig, precision: str, device: torch.device) -> str:
    """One line on the memory the weights take.

    Raises `InputError` when the device has less, and for a large model on a CPU nobody asked for.
    Gigabytes are 10^9 bytes.
    """
    count = parameters(config)
    require_gpu(f"caption.model {model}", count, device)
    size = count * DTYPES[precision].itemsize
    free = free_memory(device)
    where = "GPU" if device.type == "cuda" else "machine"
    if size * _HEADROOM > free:
        smaller = "set caption.precision to bf16, " if precision == "fp32" else ""
        raise InputError(
            f"caption.model {model} needs {size * _HEADROOM / 1e9:.1f} GB in {precision} but the "
            f"{where} has {free / 1e9:.1f} GB free; {smaller}name a smaller model, or set "
            "caption.route to endpoint and serve it elsewhere"
        )
    return (
        f"captioner {model}: {count / 1e6:,.0f} million parameters, {size / 1e9:.3g} GB in "
        f"{precision} on the {where} ({device_name(device)}), which has {free / 1e9:.1f} GB free"
    )


def load(model: str, revision: str | None, precision: str, device: torch.device) -> PreTrainedModel:
    """The model with frozen weights; safetensors only, no code from the repository."""
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()
    with _opening(model, revision):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            model,
            revision=revision,
            device_map=str(device),
            dtype=DTYPES[precision],
            use_safetensors=True,
            **_NO_CODE,
        )
    frozen: PreTrainedModel = loaded.requires_grad_(False).eval()
    return frozen
