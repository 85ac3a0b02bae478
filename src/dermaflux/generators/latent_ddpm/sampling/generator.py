"""How images of this generator are had: the trained U-Net and its autoencoder, opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermaflux.core.arrays import Pixels
from dermaflux.core.devices import automatic_device
from dermaflux.errors import InputError
from dermaflux.generators.data import autoencoder, classes
from dermaflux.generators.data.autoencoder import AutoencoderReference
from dermaflux.generators.data.options import check_sampler, check_scale
from dermaflux.generators.latent_ddpm.model import weights
from dermaflux.generators.latent_ddpm.model.options import GENERATOR as NAME
from dermaflux.generators.latent_ddpm.model.weights import Description, LatentModel
from dermaflux.generators.latent_ddpm.sampling.sample import SamplingSettings, images
from dermaflux.generators.protocol import Condition, Generator, Json, Models, Need, Provenance


class LatentDdpm:
    """The entry `sampling.generator` of this generator."""

    needs: frozenset[Need] = frozenset({"backbone"})

    def weights_id(self, models: Models) -> str:
        """SHA-256 of the weights' file; raises `InputError` where there is none."""
        return weights.FILE.digest(models.generator)

    def open(
        self, models: Models, settings: Mapping[str, Json], batch: int | None = None
    ) -> LatentDdpmSampler:
        """A sampler.

        Raises `InputError` for absent weights, an autoencoder that they were not trained with, or a
        sampler that does not fit their prediction.
        """
        identity = self.weights_id(models)
        description = weights.describe(models.generator)
        origin = autoencoder.reference(
            description.latents, description.latents_revision, models.backbone, NAME
        )
        autoencoder.require_same(description.autoencoder, origin, models.generator)
        values: dict[str, Any] = {
            "autoencoder": description.latents,
            "clip_sample_range": settings["clip_sample_range"],
            "guidance": settings["guidance"],
            "sampler": settings["sampler"],
            "steps": settings["steps"],
        }
        try:
            check_sampler(NAME, values["sampler"], values["steps"], description.path.prediction)
        except ValueError as error:
            raise InputError(str(error)) from None
        provenance = Provenance(identity, origin.licence, origin.identity)
        return LatentDdpmSampler(models, values, provenance, description, origin)


GENERATOR: Generator = LatentDdpm()


class LatentDdpmSampler:
    """Samples with the U-Net, which is loaded for the first image."""

    def __init__(
        self,
        models: Models,
        settings: dict[str, Any],
        provenance: Provenance,
        description: Description,
        origin: AutoencoderReference,
    ) -> None:
        self.settings: Mapping[str, Json] = settings
        self.provenance = provenance
        self._models, self._description, self._origin = models, description, origin
        self._sampling = SamplingSettings(
            settings["sampler"],
            int(settings["steps"]),
            float(settings["guidance"]),
            settings["clip_sample_range"],
        )
        self._opened: tuple[LatentModel, Any] | None = None

    def groups(self, conditions: Sequence[Condition]) -> list[tuple[int, ...]]:
        """(scale, 1 for unconditional ones, which need no second pass) of each condition.

        Raises `InputError` for a class without an embedding or another scale than trained.
        """
        null = len(self._description.classes)
        return [(c.scale, int(index == null)) for c, index in self._embeddings(conditions)]

    def __call__(self, conditions: Sequence[Condition]) -> Pixels:
        """uint8 (B, scale, scale, 3) of conditions of one group."""
        embeddings = [index for _, index in self._embeddings(conditions)]
        if self._opened is None:
            device = automatic_device()
            model = weights.load(self._models.generator, device)
            self._opened = model, autoencoder.load(self._origin, device)
        seeds = [condition.seed for condition in conditions]
        return images(*self._opened, self._sampling, embeddings, seeds)

    def _embeddings(self, conditions: Sequence[Condition]) -> list[tuple[Condition, int]]:
        known, kind = self._description.classes, self._description.condition
        try:
            for scale in {condition.scale for condition in conditions}:
                check_scale(NAME, scale, self._description.scale)
        except ValueError as error:
            raise InputError(str(error)) from None
        return [(c, classes.requested(NAME, known, kind, c)) for c in conditions]
