"""Adapter files read, whatever program wrote them, as layers of diffusers' model.

`read` looks at the header first and at the values second; a file that is refused costs no model.
diffusers' own converters are the reference of the tests. They are not what reads: they have FLUX's
width and number of blocks written in, multiply alpha into half-precision matrices, and drop what
they do not know. Reads the safetensors file it is given and peft's adapter_config.json beside it; a
pickle is never opened. `adapter_bytes` writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dermaflux.core.files import damaged
from dermaflux.errors import InputError, quoted
from dermaflux.generators.flux_lora.files import (
    kohya_naming,
    layer_names,
    other_files,
    peft_description,
)
from dermaflux.generators.flux_lora.files.kohya_naming import LoraLayer
from dermaflux.generators.flux_lora.files.layer_names import Layer
from dermaflux.generators.flux_lora.files.peft_description import LARGEST
from dermaflux.generators.flux_lora.model import lora, weights_file
from dermaflux.generators.flux_lora.model.weights_file import (
    FLOATS,
    INTEGERS,
    Entry,
    Header,
    UnreadableError,
)


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as its file holds it."""

    layers: dict[str, LoraLayer]
    """By diffusers' name of the Linear, such as transformer_blocks.0.attn.to_q."""
    metadata: dict[str, Any]
    """What this project wrote beside the weights; empty in files of others."""
    naming: str
    """How the file writes its layers: diffusers, kohya, PEFT, XLabs, ..."""
    text_encoder_tensors: int = 0
    """Tensors that adapt text encoders, and are not among the layers; 0 where they are all zero."""

    @property
    def parameters(self) -> int:
        """Numbers in the low-rank matrices."""
        return sum(layer.down.numel() + layer.up.numel() for layer in self.layers.values())


@dataclass
class _Pair:
    """The tensors of one layer of the file, by their names."""

    place: Layer
    down: str = ""
    up: str = ""
    alpha: str = ""


@dataclass
class _Contents:
    """What a header's tensors are."""

    pairs: dict[str, _Pair]
    """By the layer's name as the file writes it."""
    changes: list[str]
    """Added to weights, norms or biases as they stand."""
    text_encoders: list[str]


def read(path: Path, stage: str | None = None) -> AdapterFile:
    """The adapter in a safetensors file, with layers of diffusers' model.

    `stage` is the one that writes the file, None for a file from elsewhere.
    Raises `InputError` when the file is damaged or a pickle, when it is no plain LoRA of FLUX.1's
    transformer, or when a value is not finite or larger than `LARGEST`.
    """
    if path.suffix.lower() != ".safetensors":
        raise InputError(
            f"{quoted(str(path))} is not a .safetensors file, and no other format is opened because"
            " a pickle can run code; convert it first"
        )
    try:
        header = weights_file.read_header(path)
        metadata = header.json(lora.METADATA_KEY)
        contents = _contents(header)
        config = peft_description.described(path, header)
        layers = _layers(path, header, contents, config)
        applied = _changes_text_encoders(path, contents.text_encoders)
    except UnreadableError as error:
        if stage is not None:
            raise damaged(path, error.clause, stage) from None
        raise InputError(f"{quoted(str(path))} {error.problem}; {error.fix}") from None
    return AdapterFile(
        layers,
        metadata if isinstance(metadata, dict) else {},
        layer_names.naming(sorted(contents.pairs)),
        len(contents.text_encoders) if applied else 0,
    )


def _changes_text_encoders(path: Path, tensors: list[str]) -> bool:
    """Whether tensors of text encoders do anything; low-rank matrices with B = 0 do not."""
    roles = {name: (layer_names.split(name) or (name, "other"))[1] for name in tensors}
    if any(role in ("change", "other") for role in roles.values()):  # of LoKr, LoHa, DoRA, ...
        return True
    ups = [name for name, role in roles.items() if role == "up"]
    return any(bool(tensor.any()) for _, tensor in weights_file.read_tensors(path, ups))


def _contents(header: Header) -> _Contents:
    """Every tensor in its place, from names and shapes; `UnreadableError` for any other file."""
    contents = _Contents({}, [], [])
    unknown: dict[str, Entry] = {}
    for name, entry in header.tensors.items():
        found = layer_names.split(name)
        if layer_names.of_text_encoder(name):
            contents.text_encoders.append(name)
        elif found is None:
            unknown[name] = entry
        elif found[1] == "change":
            contents.changes.append(name)
        elif (place := layer_names.layer(found[0])) is None:
            unknown[name] = entry
        else:
            _enter(contents.pairs.setdefault(found[0], _Pair(place)), found[1], name)
    for what in _refusals(header, contents, unknown):
        if what is not None:
            raise UnreadableError(f"is {what.partition('; ')[0]}", what.partition("; ")[2])
    if not contents.pairs and not contents.changes:
        what = "adapts text encoders alone" if contents.text_encoders else "holds no tensor"
        raise UnreadableError(what, "give a LoRA of FLUX.1's transformer")
    for name, pair in contents.pairs.items():
        _check_shapes(name, pair, header)
    return contents


def _refusals(
    header: Header, contents: _Contents, unknown: Mapping[str, Entry]
) -> Iterator[str | None]:
    """What else the file is, most telling first."""
    for pair in contents.pairs.values():
        shape = header.tensors[pair.down].shape if pair.down else ()
        if pair.place.parts == ("x_embedder",) and len(shape) == 2:
            yield other_files.embedder(shape[1])
    yield other_files.adapter_kind([*unknown, *contents.pairs])
    if unknown:
        yield other_files.foreign(unknown, beside=bool(contents.pairs))
    yield other_files.declared(header.metadata)


def _enter(pair: _Pair, role: str, name: str) -> None:
    if getattr(pair, role):
        raise UnreadableError(
            f"has two tensors for one matrix, {quoted(getattr(pair, role))} and {quoted(name)}",
            "give a file of one adapter",
        )
    setattr(pair, role, name)


def _check_shapes(name: str, pair: _Pair, header: Header) -> None:
    """Raise `UnreadableError` unless the two matrices of a layer fit, in shape and dtype."""
    if not (pair.down and pair.up):
        raise UnreadableError(
            f"has no {'down (A)' if pair.up else 'up (B)'} matrix for the layer {quoted(name)}",
            "download it again",
        )
    down, up = header.tensors[pair.down], header.tensors[pair.up]
    for tensor, entry in ((pair.down, down), (pair.up, up)):
        if entry.dtype not in FLOATS:
            raise UnreadableError(
                f"stores {quoted(tensor)} as {entry.dtype} and not as floating-point numbers",
                "give it in fp32, fp16, bf16 or fp8",
            )
        if len(entry.shape) != 2 or 0 in entry.shape:
            size = " x ".join(map(str, entry.shape)) or "one number"
            raise UnreadableError(
                f"has {size} for {quoted(tensor)} and not a matrix of at least 1 x 1",
                "give a LoRA of Linear layers, of rank 1 or higher",
            )
    if up.shape[1] != down.shape[0]:
        raise UnreadableError(
            f"has matrices of rank {down.shape[0]:,} and {up.shape[1]:,} for the layer "
            f"{quoted(name)}",
            "download it again",
        )
    if pair.alpha:
        entry = header.tensors[pair.alpha]
        if math.prod(entry.shape) != 1 or entry.dtype not in FLOATS | INTEGERS:
            raise UnreadableError(f"has no single number in {quoted(pair.alpha)}")


def _layers(
    path: Path, header: Header, contents: _Contents, config: dict[str, Any] | None
) -> dict[str, LoraLayer]:
    """The layers with their values, each checked."""
    for name, tensor in weights_file.read_tensors(path, contents.changes):
        if bool(tensor.any()):
            raise UnreadableError(
                f"changes {quoted(name)} by a whole tensor and not by two low-rank matrices",
                "give a LoRA of Linear layers alone, without norms and biases",
            )
    layers: dict[str, LoraLayer] = {}
    for name, pair in sorted(contents.pairs.items()):
        names = [tensor for tensor in (pair.down, pair.up, pair.alpha) if tensor]
        tensors = dict(weights_file.read_tensors(path, names))
        down, up = tensors[pair.down], tensors[pair.up]
        if pair.alpha:
            alpha = peft_description.positive(float(tensors[pair.alpha].reshape(())), name)
        else:
            alpha = peft_description.alpha_of(config, name, pair.place, down.shape[0])
        layer = LoraLayer(down, up, alpha)
        _check_size(name, layer)
        for part, one in kohya_naming.parts(name, pair.place, layer).items():
            if part in layers and not _same(layers[part], one):
                raise UnreadableError(
                    f"adapts {part} twice, the second time as {quoted(name)}",
                    "give a file of one adapter",
                )
            layers[part] = one
    return layers


def _same(left: LoraLayer, right: LoraLayer) -> bool:
    equal = torch.equal(left.down, right.down) and torch.equal(left.up, right.up)
    return equal and left.alpha == right.alpha


def _check_size(name: str, layer: LoraLayer) -> None:
    """Raise `UnreadableError` for matrices, or a product of theirs, above `LARGEST`."""
    down, up, scale = layer.down.double(), layer.up.double(), abs(layer.alpha) / layer.rank
    largest = max(float(down.abs().max()), float(up.abs().max()))
    # Cauchy and Schwarz bound the product; it is computed only where the bound does not decide.
    if (
        largest <= LARGEST
        and float(up.norm(dim=1).max() * down.norm(dim=0).max()) * scale > LARGEST
    ):
        largest = float((up @ down).abs().max()) * scale
    if largest > LARGEST:
        raise UnreadableError(
            f"holds or adds values up to {largest:.3g} in the layer {quoted(name)}, where half "
            f"precision ends at {LARGEST:,.0f}",
            "give a LoRA whose training did not diverge",
        )
