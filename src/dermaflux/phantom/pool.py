"""Fresh phantom lesions as a released pool: what a perfect generator would make.

Reads nothing. Writes a folder that `generator: released` and `ingest.own` read: images in the
folders ``benign`` and ``malignant``, ``phantom.csv`` (the true attributes, which no stage reads)
and ``pool.json``. Command: ``dermaflux phantom --pool 2000 FOLDER``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dermaflux.core.files import atomic_folder, require_empty, write_json, write_text
from dermaflux.errors import InputError
from dermaflux.phantom.folder import layouts, truth, write_images
from dermaflux.phantom.layout import PlannedImage, pick
from dermaflux.phantom.lesion import Label, RandomIntegers, bayes_auc, draw

MOST = 100_000
_LABELS: tuple[Label, Label] = ("benign", "malignant")
_SEEDS = 2**31
_MINIMUM_SIDE = 128
"""Shorter side in pixels from which the corpus keeps an image, and the smallest scale of a pool."""


def plan(count: int, seed: int = 0, *, shuffled: bool = False) -> list[PlannedImage]:
    """`count` images of as many lesions, half of each class; `label` is the folder's.

    Attributes given the class follow the corpus's law (`lesion.ATTRIBUTES`). Size, file format and
    JPEG quality are those of a random training image of that class in the corpus. No lesion is in
    the corpus or in a pool of another seed. With `shuffled` the labels are permuted at random
    among the same images.
    """
    published = [image for layout in layouts().values() for image in layout.images]
    looks = {label: _training(published, label) for label in _LABELS}
    rng, images = RandomIntegers("pool look", seed), []
    for index in range(count):
        label = _LABELS[index % len(_LABELS)]
        look = pick(looks[label], rng)
        lesion = draw(index, f"pool/{seed}", label)
        path = f"{label}/{index:06d}{Path(look.path).suffix}"
        images.append(PlannedImage(path, lesion, look.size, "train", label, look.quality))
    if not shuffled:
        return images
    labels = RandomIntegers("pool labels", seed).shuffled([image.label for image in images])
    return [
        replace(image, label=label, path=f"{label}/{Path(image.path).name}")
        for image, label in zip(images, labels, strict=True)
    ]


def _training(images: Sequence[PlannedImage], label: Label) -> list[PlannedImage]:
    """Intact ones of a class that training can see."""
    return [
        image
        for image in images
        if image.label == label and image.split != "test" and not image.damage
        if min(image.size) >= _MINIMUM_SIDE
    ]


def write(
    folder: Path, count: int, seed: int = 0, *, shuffled: bool = False, jobs: int = -1
) -> None:
    """Render a pool into `folder`, which must be new or empty; as `plan` and `folder.write`.

    Raises `InputError` for a count or seed outside its range and a folder that holds something.
    """
    if not 2 <= count <= MOST or count % len(_LABELS):
        raise InputError(
            f"a phantom pool of {count} images cannot be rendered; give --pool an even number from "
            f"2 to {MOST:,}, half of each class"
        )
    if not 0 <= seed < _SEEDS:
        raise InputError(f"the seed {seed} is out of range; give --seed 0 to {_SEEDS - 1:,}")
    require_empty(folder, "the phantom pool")
    images = plan(count, seed, shuffled=shuffled)
    facts = {"images": count, "seed": seed, "labels_shuffled": shuffled, "bayes_auc": bayes_auc()}
    with atomic_folder(folder) as partial:
        write_images(partial, images, jobs)
        write_text(partial / "phantom.csv", truth(images))
        write_json(partial / "pool.json", facts)
