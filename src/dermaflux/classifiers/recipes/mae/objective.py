"""The loss of an optimiser step of pre-training. Reads pixels from the cache, writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dermaflux.classifiers.data.samples import Images
from dermaflux.classifiers.model import network
from dermaflux.classifiers.recipes.mae import views
from dermaflux.classifiers.recipes.mae.views import Steps
from dermaflux.core.arrays import Array
from dermaflux.core.distributed import Processes
from dermaflux.training.prefetch import StepsAhead, moved
from dermaflux.training.protocol import Step
from dermaflux.training.step_log import Work

_BATCHES_AHEAD = 4  # read while the device computes


class Objective:
    """What `training.fit` asks for: the squared error on hidden patches, He et al., section 3.

    An image's crop and hidden patches follow from (seed, step) and its place in the batch, so
    several processes, which share a batch, train what one would.
    """

    def __init__(
        self,
        model: Any,
        config: Mapping[str, Any],
        images: Images,
        image_ids: Sequence[str],
        steps: Steps,
        total: int,
        crop_area: tuple[float, float],
        flop_per_image: float,
        processes: Processes,
    ) -> None:
        self._model, self._config = model, dict(config)
        self._images, self._ids, self._steps = images, image_ids, steps
        self._area, self._flop, self._processes = crop_area, flop_per_image, processes
        self._patches = model.vit.embeddings.patch_embeddings.num_patches
        self._ahead = StepsAhead(self._prepared, lambda step: [step], total, _BATCHES_AHEAD)

    def weights(self) -> Mapping[str, nn.Parameter]:
        """All but the fixed positions."""
        named = self._model.named_parameters()
        return {name: weight for name, weight in named if weight.requires_grad}

    def parts(self, step: int) -> Iterator[Step]:
        """This process's images of an optimiser step, counted from 0."""
        ahead = self._ahead.at(step)
        indices, pixels, chances, noise = next(ahead)
        images = views.crop(network.unit(pixels), chances, self._area)
        output = self._model(pixel_values=network.normalise(images, self._config), noise=noise)
        share = len(indices) / self._steps.count(step) if self._processes.world > 1 else 1.0
        yield Step(output.loss * share, [self._ids[index] for index in indices], ahead.waited)

    def work(self, step: int) -> Work:
        """Images and FLOP of an optimiser step, over all processes."""
        images = self._steps.count(step)
        return Work(images, flop=images * self._flop)

    def close(self) -> None:
        """Drop what was read for later steps."""
        self._ahead.close()

    def _prepared(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Indices, pixels (B, S, S, 3) and random numbers of this process's images."""
        batch = self._steps.at(step)
        drawn = views.chances(self._steps.seed, step, len(batch), self._patches)
        mine = slice(self._processes.rank, None, self._processes.world)
        pixels = network.read(self._images, batch[mine].numpy())
        device = self._processes.device
        chances, noise = (numbers[mine] for numbers in drawn)
        return batch[mine], moved(pixels, device), moved(chances, device), moved(noise, device)


class HeldOut:
    """The same loss on images that are never trained on, uncropped, always hidden alike."""

    def __init__(
        self, model: Any, config: Mapping[str, Any], images: Images, batch: int, seed: int
    ) -> None:
        self._model, self._config, self._images = model, dict(config), images
        self._batch = batch
        patches = model.vit.embeddings.patch_embeddings.num_patches
        self.noise = views.chances(seed, -1, len(images), patches)[1]
        """(N, patches): what is hidden."""

    def normalised(self, part: slice | Array) -> Tensor:
        """Images (B, 3, S, S) as the model takes them."""
        pixels = network.read(self._images, part).to(self._model.device)
        return network.normalise(network.unit(pixels), self._config)

    def __call__(self, step: int = 0) -> dict[str, float]:
        """`validation_loss`, the mean over images."""
        total = 0.0
        training = self._model.training
        self._model.eval()
        with torch.no_grad():
            for first in range(0, len(self._images), self._batch):
                part = slice(first, first + self._batch)
                noise = self.noise[part]
                output = self._model(
                    pixel_values=self.normalised(part), noise=noise.to(self._model.device)
                )
                total += float(output.loss) * len(noise)
        self._model.train(training)
        return {"validation_loss": total / len(self._images)}
