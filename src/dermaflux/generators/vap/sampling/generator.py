"""How images of this generator are had: U-ViT, text tower and autoencoder, opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dermaflux.core.arrays import Pixels
from dermaflux.core.devices import automatic_device
from dermaflux.errors import InputError, quoted
from dermaflux.generators.data import autoencoder, classes
from dermaflux.generators.data.autoencoder import AutoencoderReference
from dermaflux.generators.data.options import check_sampler, check_scale
from dermaflux.generators.protocol import Condition, Generator, Json, Models, Need, Provenance
from dermaflux.generators.vap.model import text, weights
from dermaflux.generators.vap.model.options import GENERATOR as NAME
from dermaflux.generators.vap.model.text import TextReference, TextTower
from dermaflux.generators.vap.model.weights import Description, LatentModel
from dermaflux.generators.vap.sampling.sample import SamplingSettings, Wanted, images

_SHOWN = 12  # characters of an identity in a sentence


class Vap:
    """The entry `sampling.generator` of this generator."""

    needs: frozenset[Need] = frozenset({"captions", "backbone"})

    def weights_id(self, models: Models) -> str:
        """SHA-256 of the weights' file; raises `InputError` where there is none."""
        return weights.FILE.digest(models.generator)

    def open(
        self, models: Models, settings: Mapping[str, Json], batch: int | None = None
    ) -> VapSampler:
        """A sampler.

        Raises `InputError` for absent weights, an autoencoder or text tower that they were not
        trained with, or a sampler that does not fit their prediction.
        """
        identity = self.weights_id(models)
        description = weights.describe(models.generator)
        frozen = _frozen(description, models)
        values: dict[str, Any] = {
            "autoencoder": description.latents,
            "clip_sample_range": settings["clip_sample_range"],
            "guidance": settings["guidance"],
            "sampler": settings["sampler"],
            "solver_order": settings["solver_order"],
            "steps": settings["steps"],
            "text": description.text,
        }
        try:
            check_sampler(NAME, values["sampler"], values["steps"], description.path.prediction)
        except ValueError as error:
            raise InputError(str(error)) from None
        below = "/".join(filter(None, (frozen.vae.identity, description.tower)))
        provenance = Provenance(identity, frozen.vae.licence, below)
        return VapSampler(models, values, provenance, description, frozen)


GENERATOR: Generator = Vap()


@dataclass(frozen=True)
class Frozen:
    """The frozen models that weights were trained with."""

    vae: AutoencoderReference
    tower: TextReference | None


def _frozen(description: Description, models: Models) -> Frozen:
    """Raises `InputError` where they are others now."""
    vae = autoencoder.reference(
        description.latents, description.latents_revision, models.backbone, NAME
    )
    autoencoder.require_same(description.autoencoder, vae, models.generator)
    if description.tower is None:
        return Frozen(vae, None)
    tower = text.reference(
        description.text_encoder, description.text_encoder_revision, models.backbone
    )
    if tower.identity != description.tower:
        shape = description.shape
        raise InputError(
            f"{models.generator} was trained with the text tower {description.tower[:_SHOWN]}, "
            f"{shape.text_tokens} tokens of width {shape.text_width}, and {quoted(tower.source)} "
            f"is {tower.identity[:_SHOWN]}; run the stage `finetune` again"
        )
    return Frozen(vae, tower)


class VapSampler:
    """Samples with the U-ViT, which is loaded for the first image."""

    def __init__(
        self,
        models: Models,
        settings: dict[str, Any],
        provenance: Provenance,
        description: Description,
        frozen: Frozen,
    ) -> None:
        self.settings: Mapping[str, Json] = settings
        self.provenance = provenance
        self._models, self._description, self._frozen = models, description, frozen
        self._sampling = SamplingSettings(
            settings["sampler"],
            int(settings["steps"]),
            float(settings["guidance"]),
            int(settings["solver_order"]),
            settings["clip_sample_range"],
        )
        self._opened: tuple[LatentModel, Any, TextTower | None] | None = None

    def groups(self, conditions: Sequence[Condition]) -> list[tuple[int, ...]]:
        """(scale, 1 for unconditional ones, which need no second pass) of each condition.

        Raises `InputError` for a class that was not trained or another scale than trained.
        """
        known, scale = len(self._description.classes), self._description.scale
        return [(scale, int(each.unconditional(known))) for each in self._wanted(conditions)]

    def __call__(self, conditions: Sequence[Condition]) -> Pixels:
        """uint8 (B, scale, scale, 3) of conditions of one group."""
        wanted = self._wanted(conditions)
        if self._opened is None:
            device, frozen = automatic_device(), self._frozen
            tower = None if frozen.tower is None else text.load(frozen.tower, device)
            model = weights.load(self._models.generator, device)
            self._opened = model, autoencoder.load(frozen.vae, device), tower
        model, vae, tower = self._opened
        return images(model, vae, tower, self._sampling, wanted)

    def _wanted(self, conditions: Sequence[Condition]) -> list[Wanted]:
        description = self._description
        try:
            for scale in {condition.scale for condition in conditions}:
                check_scale(NAME, scale, description.scale)
        except ValueError as error:
            raise InputError(str(error)) from None
        return [self._shown(condition) for condition in conditions]

    def _shown(self, condition: Condition) -> Wanted:
        description = self._description
        asked = condition
        if description.condition == classes.MALIGNANCY:
            # Of the image that the prompt describes; here it is not what is asked for.
            asked = replace(condition, diagnosis=None)
        index = classes.requested(NAME, description.classes, description.condition, asked)
        prompt = condition.prompt if description.tower is not None else ""
        return Wanted(index, prompt, condition.seed)
