"""How well an image goes with its own prompt, by a model of open_clip (CLIPScore, Hessel et al.
2021, arXiv 2104.08718).

The cosine of image and prompt alone has a level of its own in every model; given here is by how
much it exceeds that of the same image and the other prompts of its class. Reads the weights of
`audit.image_text`; `excess` is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux.audit import trunk_weights
from dermaflux.audit.interval import around, missing
from dermaflux.core.arrays import Array, Pixels
from dermaflux.core.devices import automatic_device
from dermaflux.errors import InputError, quoted

if TYPE_CHECKING:
    from dermaflux.params import Audit

MINIMUM = 10
"""Images of a class, so that there are other prompts to compare with."""
_BATCH = 64
Score = Callable[[Iterable[Pixels], Sequence[str]], tuple[Array, Array]]
"""Square images uint8 (S, S, 3) and as many texts -> embeddings (N, D) of length 1 of both."""


def excess(images: Array, texts: Array, labels: Sequence[str]) -> dict[str, Any]:
    """Mean cosine (N, D) of image and own text less that with other texts of its class.

    In [-2, 2], 0 where prompts do not matter; the interval is that of the mean over images.
    """
    differences = []
    classes = np.array(labels)
    for name in sorted(set(labels)):
        members = np.flatnonzero(classes == name)
        if len(members) < MINIMUM:
            continue
        cosines = images[members] @ texts[members].T
        own = np.diag(cosines)
        differences.append(own - (cosines.sum(axis=1) - own) / (len(members) - 1))
    if not differences:
        return missing(f"needs {MINIMUM} images of a class") | {"images": 0}
    each = np.concatenate(differences)
    mean = around(float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each))))
    return {"images": len(each), **mean._asdict()}


def open_model(settings: Audit) -> tuple[int, Score]:
    """Side of the images that the model of `audit.image_text` reads, and what embeds pairs.

    Raises `InputError` when its weights or its tokenizer are not available.
    """
    name, parameter = str(settings.image_text), "audit.image_text"
    named, revision = settings.image_text_weights, settings.image_text_revision
    path = trunk_weights.find_weights(named, revision, "open_clip", f"{parameter}_")
    model = trunk_weights.open_clip_model(
        name, path, f"{parameter} {quoted(name)}", f"{parameter}_weights"
    )
    device = automatic_device()
    model.to(device).eval()
    import open_clip
    import torch

    try:
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, ValueError) as error:  # of the hub, where the vocabulary is not in open_clip
        raise InputError(
            f"audit.image_text {quoted(name)} has a tokenizer that could not be loaded "
            f"({type(error).__name__}); name a model whose vocabulary is part of open_clip, such "
            "as ViT-B-32"
        ) from None
    side, scaling = trunk_weights.open_clip_scaling(model.visual)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in scaling)

    def score(images: Iterable[Pixels], texts: Sequence[str]) -> tuple[Array, Array]:
        seen, read = [], []
        with torch.inference_mode():
            stream = iter(images)
            while part := list(islice(stream, _BATCH)):
                pixels = torch.tensor(np.stack(part), device=device).permute(0, 3, 1, 2) / 255
                seen.append(model.encode_image((pixels - mean) / std, normalize=True).cpu())
            for start in range(0, len(texts), _BATCH):
                tokens = tokenizer(list(texts[start : start + _BATCH])).to(device)
                read.append(model.encode_text(tokens, normalize=True).cpu())
        return torch.cat(seen).numpy(), torch.cat(read).numpy()

    return side, score
