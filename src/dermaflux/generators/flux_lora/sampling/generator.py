"""How images of this generator are had: the backbone with its adapter, opened for sampling."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dermaflux.core.arrays import Pixels
from dermaflux.core.files import damaged, read_json
from dermaflux.errors import InputError, quoted
from dermaflux.generators.flux_lora.model import lora, pipeline, weights_file
from dermaflux.generators.flux_lora.model.options import BaseDtype, PromptPadding
from dermaflux.generators.flux_lora.model.prompt_padding import text_lengths
from dermaflux.generators.flux_lora.sampling import load
from dermaflux.generators.flux_lora.sampling.sample import SamplingSettings, sample
from dermaflux.generators.protocol import (
    FACTS,
    Condition,
    Generator,
    Json,
    Models,
    Need,
    Provenance,
)

if TYPE_CHECKING:
    from diffusers import FluxPipeline


_FACTS = {"prompt_padding": get_args(PromptPadding), "base_dtype": get_args(BaseDtype)}
"""What sampling needs of models/generator/finetune.json, and its values."""


class FluxLora:
    """The entry `sampling.generator` of this generator."""

    needs: frozenset[Need] = frozenset({"captions", "backbone"})

    def weights_id(self, models: Models) -> str:
        """SHA-256 of the adapter's file; raises `InputError` where there is none."""
        file = models.generator / lora.WEIGHTS
        if not file.exists():
            raise _absent(models)
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def open(
        self, models: Models, settings: Mapping[str, Json], batch: int | None = None
    ) -> FluxLoraSampler:
        """A sampler; what `settings` leave open is as in training.

        Raises `InputError` when the adapter is absent or made for another backbone.
        """
        facts_file = models.generator / FACTS
        if not facts_file.exists():
            raise _absent(models)
        weights = self.weights_id(models)
        facts = read_json(facts_file, "the stage finetune", "backbone")
        _check_weights(models.generator / lora.WEIGHTS)
        origin = pipeline.reference(models.backbone)
        if facts["backbone"] != origin.identity:
            raise InputError(
                f"{models.generator} was fine-tuned on another backbone than {models.backbone} "
                "holds; run the stage `finetune` again"
            )
        for name, known in _FACTS.items():
            if name not in facts:
                raise InputError(
                    f"{facts_file} has no {name}, so an earlier version wrote it; run the stage "
                    "`finetune` again"
                )
            if facts[name] not in known:
                problem = f"{name} is {quoted(facts[name])} and not one of {', '.join(known)}"
                raise damaged(facts_file, problem, "the stage finetune")
        values: dict[str, Any] = {
            "backbone": origin.name,
            "base_dtype": settings.get("base_dtype") or facts["base_dtype"],
            "guidance": settings["guidance"],
            "prompt_padding": settings.get("prompt_padding") or facts["prompt_padding"],
            "steps": settings["steps"],
        }
        provenance = Provenance(weights, origin.licence, origin.identity)
        return FluxLoraSampler(
            models, values, provenance, batch if settings.get("compile") else None
        )


GENERATOR: Generator = FluxLora()


class FluxLoraSampler:
    """Samples with the adapted pipeline, which is loaded for the first image."""

    def __init__(
        self,
        models: Models,
        settings: dict[str, Any],
        provenance: Provenance,
        compiled_batch: int | None,
    ) -> None:
        self.settings: Mapping[str, Json] = settings
        self.provenance = provenance
        self._models, self._compiled_batch = models, compiled_batch
        self._sampling = SamplingSettings(
            int(settings["steps"]), float(settings["guidance"]), settings["prompt_padding"]
        )
        self._base_dtype: BaseDtype = settings["base_dtype"]
        self._pipe: FluxPipeline | None = None

    def groups(self, conditions: Sequence[Condition]) -> list[tuple[int, ...]]:
        """(scale, T5 length) of each condition."""
        _, tokenizer = pipeline.tokenizers(self._models.backbone)
        prompts = [condition.prompt for condition in conditions]
        lengths = text_lengths(tokenizer, prompts, self._sampling.prompt_padding)
        return [(c.scale, length) for c, length in zip(conditions, lengths, strict=True)]

    def __call__(self, conditions: Sequence[Condition]) -> Pixels:
        """uint8 (B, scale, scale, 3) of conditions of one group."""
        if self._pipe is None:
            compiled = self._compiled_batch is not None
            folder, backbone = self._models.generator, self._models.backbone
            self._pipe = load.open_generator(folder, backbone, self._base_dtype, compiled)
        # A compiled model has one shape per text length: the last batch of each is filled up.
        missing = (self._compiled_batch or 0) - len(conditions)
        filled = [*conditions, *[conditions[-1]] * missing]
        return sample(self._pipe, self._sampling, filled)[: len(conditions)]


def _check_weights(file: Path) -> None:
    """Raise `InputError` when the adapter's file is damaged, before the backbone is loaded."""
    try:
        header = weights_file.read_header(file)
        for _ in weights_file.read_tensors(file, header.tensors):
            pass
        if not isinstance(header.json(lora.DIFFUSERS_CONFIG), dict):
            raise weights_file.UnreadableError(f"has no metadata {lora.DIFFUSERS_CONFIG}")
    except weights_file.UnreadableError as error:
        raise damaged(file, error.clause, "the stage finetune") from None


def _absent(models: Models) -> InputError:
    return InputError(f"{models.generator} holds no {lora.WEIGHTS}; run the stage `finetune`")
