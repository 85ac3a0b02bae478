"""The frozen text tower: which one it is, opening it, and states of every token of a description.

Reads models/backbone/ or the folder or hub repository that `finetune.vap.text_encoder` names;
writes nothing. Every description has the tower's full length, padding included, as in the released
code; states are rounded to half precision, in training and sampling alike, so that a cached one is
one that was just computed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dermaflux.captions.text import lengths
from dermaflux.core import hub
from dermaflux.core.hashing import folder_digest
from dermaflux.errors import InputError, one_line, quoted
from dermaflux.generators.data.autoencoder import pinned
from dermaflux.generators.data.options import BACKBONE
from dermaflux.generators.vap.model.options import OPEN_CLIP

_PARAMETER = "finetune.vap.text_encoder"
_INSTEAD = "name a folder with a CLIP text encoder of transformers, or with open_clip's files"
_CONFIG, _OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*.bin"]
_TOGETHER = 16
"""Descriptions encoded together, always: kernels round in another way at another size."""


@dataclass(frozen=True)
class TextReference:
    """Which text tower a value of `text_encoder` stands for."""

    kind: Literal["transformers", "open_clip"]
    source: str
    """Folder or hub id."""
    revision: str | None
    parts: tuple[str, str]
    """Subfolders of encoder and tokenizer; empty where they are at the top."""
    identity: str
    """Changes with the weights: hash of the folder's files, or repository@revision."""


def reference(text_encoder: str, revision: str | None, backbone: Path) -> TextReference:
    """Resolve a value of `text_encoder`, and the commit that the revision of a hub id stands for.

    Raises `InputError` for a folder without a text tower.
    """
    source, parts = text_encoder.removeprefix(OPEN_CLIP), ("", "")
    if text_encoder == BACKBONE:
        source, revision, _ = pinned(backbone)
        parts = ("text_encoder", "tokenizer")
    folder = Path(source)
    if not folder.is_dir():
        return _of_hub(text_encoder, source, revision, parts)
    if (folder / _OPEN_CLIP_CONFIG).is_file():
        return TextReference("open_clip", source, None, ("", ""), folder_digest(folder))
    if not (folder / _CONFIG).is_file():
        parts = ("text_encoder", "tokenizer")
    if not (folder / parts[0] / _CONFIG).is_file():
        fix = "run the stage `backbone`" if text_encoder == BACKBONE else _INSTEAD
        raise InputError(
            f"{_PARAMETER} {quoted(text_encoder)} holds no text encoder ({_CONFIG} is not there); "
            f"{fix}"
        )
    places = dict.fromkeys(folder / part for part in parts)
    identity = "/".join(folder_digest(place) for place in places)
    return TextReference("transformers", source, None, parts, identity)


def _of_hub(
    text_encoder: str, source: str, revision: str | None, parts: tuple[str, str]
) -> TextReference:
    if revision is None:
        raise InputError(hub.unpinned(_PARAMETER, source, "finetune.vap.text_encoder_revision"))
    ours = text_encoder.startswith(OPEN_CLIP)
    if text_encoder != BACKBONE:  # the stage `backbone` has pinned a commit
        file = _OPEN_CLIP_CONFIG if ours else _CONFIG
        revision = hub.commit(_PARAMETER, source, revision, file, _INSTEAD)
    identity = "/".join(filter(None, (f"{source}@{revision}", parts[0])))
    return TextReference("open_clip" if ours else "transformers", source, revision, parts, identity)


@dataclass(frozen=True)
class TextTower:
    """A frozen tower ready to encode."""

    reference: TextReference
    network: Any
    """Gives `last_hidden_state` (B, T, D) of token ids and their mask."""
    tokenizer: Any
    """A tokenizer of transformers."""
    tokens: int
    """T: every description is filled up or cut to it."""
    width: int
    """D."""
    pads_masked: bool
    """Whether the tower ignores padding, as BERT does; CLIP's never looks ahead to it."""

    def counts(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each description, with those of start and end, before it is cut."""
        return lengths.in_tokens(self.tokenizer, prompts)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """States of every token, (B, T, D) float16 on the tower's device; equal texts once."""
        device = next(self.network.parameters()).device
        texts = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
        encoded = []
        for start in range(0, len(texts), _TOGETHER):
            part = list(texts)[start : start + _TOGETHER]
            filled = [*part, *[part[-1]] * (_TOGETHER - len(part))]
            ids = self.tokenizer(
                filled, padding="max_length", truncation=True, max_length=self.tokens,
                return_tensors="pt", verbose=False,
            )  # fmt: skip
            mask = ids.attention_mask.to(device) if self.pads_masked else None
            output = self.network(input_ids=ids.input_ids.to(device), attention_mask=mask)
            encoded.append(output.last_hidden_state[: len(part)].half())
        return torch.cat(encoded)[[texts[prompt] for prompt in prompts]]


def load(origin: TextReference, device: torch.device) -> TextTower:
    """The frozen tower in float32.

    Raises `InputError` when it cannot be opened, or when open_clip is not installed.
    """
    tower = _open_clip(origin) if origin.kind == "open_clip" else _transformers(origin)
    tower.network.requires_grad_(False).eval().to(device)
    return tower


def _opening(origin: TextReference) -> AbstractContextManager[None]:
    return hub.opening(_PARAMETER, origin.source, origin.revision, "folder", _INSTEAD)


def _transformers(origin: TextReference) -> TextTower:
    from transformers import AutoTokenizer, CLIPTextModel
    from transformers.utils import logging

    model: Any = CLIPTextModel
    messages: Any = logging
    # A whole CLIP lies in one file, and the image tower's weights would be listed as unexpected.
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    encoder, tokenizer = origin.parts
    try:
        with _opening(origin):
            network = model.from_pretrained(
                origin.source, subfolder=encoder, revision=origin.revision, dtype=torch.float32
            )
            words = AutoTokenizer.from_pretrained(
                origin.source, subfolder=tokenizer, revision=origin.revision,
                trust_remote_code=False,
            )  # fmt: skip
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _unopened(origin, error) from None
    config = network.config
    tokens, width = config.max_position_embeddings, config.hidden_size
    return TextTower(origin, network, words, int(tokens), int(width), pads_masked=False)


def _open_clip(origin: TextReference) -> TextTower:
    """The text tower of an open_clip model with one of transformers inside, as BiomedCLIP's.

    Its own `output_tokens` leaves the class token out (255 of 256), so the tower inside is asked.
    """
    import pickle  # nosec B403 # for the name of its error

    try:
        import open_clip
    except ImportError:
        raise InputError(
            f"{_PARAMETER} {quoted(origin.source)} needs open_clip, which is not installed; run "
            "`pip install 'dermaflux[vap]'`, or set text_encoder to backbone"
        ) from None
    try:
        with _opening(origin):
            folder = Path(origin.source)
            if origin.revision is not None:
                from huggingface_hub import snapshot_download

                download = snapshot_download(
                    origin.source, revision=origin.revision, allow_patterns=_FILES
                )
                folder = Path(download)
            address = f"local-dir:{folder}"
            config = json.loads((folder / _OPEN_CLIP_CONFIG).read_text(encoding="utf-8"))
            model = open_clip.create_model_from_pretrained(
                address, weights_only=True, return_transform=False
            )
            words: Any = open_clip.get_tokenizer(address)
        network, words = model.text.transformer, words.tokenizer
        tokens = config["model_cfg"]["text_cfg"].get("context_length", 77)
        width, longest = network.config.hidden_size, network.config.max_position_embeddings
    except (AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError,
            pickle.UnpicklingError) as error:  # fmt: skip
        raise _unopened(origin, error) from None
    if tokens > longest:
        raise InputError(
            f"{_PARAMETER} {quoted(origin.source)} asks for {tokens} tokens and its text tower has "
            f"positions for {longest}; correct context_length in its {_OPEN_CLIP_CONFIG}"
        )
    return TextTower(origin, network, words, int(tokens), int(width), pads_masked=True)


def _unopened(origin: TextReference, error: Exception) -> InputError:
    return InputError(
        f"{_PARAMETER} {quoted(origin.source)} cannot be opened ({one_line(error, 150)}); "
        f"{_INSTEAD}"
    )
