"""What a pool needs, checked before work that costs; decides no byte of any output."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted
from dermaflux.paths import project_root

if TYPE_CHECKING:
    from dermaflux.generators.pool.selector import Selector
    from dermaflux.params import Params


def require_room(params: Params) -> None:
    """Raise `InputError` where no disk could hold the candidates of `synthesize.select`.

    `synthesize` tells it as well, but plans each of them before. What an unfinished run has sampled
    is counted there alone.
    """
    section = params.synthesize
    folder = project_root() / ".dermaflux" / "checkpoints" / "synthesize"
    if section.select == "none" or any(folder.glob("*/*")):
        return
    from dermaflux.generators.pool.choice import Choice

    # Room does not depend on the classifier, which is not trained yet.
    choice = Choice(cast("Selector", None), section.images, section.candidates)
    choice.require_room(folder, 0, section.scale)


def require_prompts(params: Params) -> None:
    """Raise `InputError` where `synthesize.prompt_file` cannot give a prompt of each class.

    Reads the corpus and, for the descriptions of test images, the captions.
    """
    from dermaflux import paths
    from dermaflux.generators.pool import prompts

    section = params.synthesize
    if params.samples() and section.prompt_source == "file":
        shares = prompts.shares_for(section, paths.CORPUS)
        prompts.own_prompts(section, paths.CORPUS, paths.CAPTIONS, shares)


def require_classes(params: Params) -> None:
    """Raise `InputError` where a collection names too few images of a class, such as none."""
    from dermaflux.generators import registry
    from dermaflux.generators.protocol import Collection

    collection = registry.generator(params.generator)
    if not isinstance(collection, Collection):
        return
    settings, images = params.synthesize.settings(params.generator), params.synthesize.images
    named = collection.named(settings)
    counts = {label: named.get(label, 0) for label in CLASSES}
    if (params.synthesize.conditions, params.synthesize.proportions) != ("malignancy", "balanced"):
        if sum(counts.values()) < images:  # of each diagnosis `synthesize` counts
            places = " and ".join(filter(None, settings.input_paths().values()))
            raise InputError(
                f"{quoted(places)} names {sum(counts.values()):,} images of a class but "
                f"synthesize.images is {images:,}; add images, or lower it"
            )
        return
    if min(counts.values()) < images // len(CLASSES):
        held = " and ".join(f"{count:,} {label}" for label, count in counts.items())
        places = " and ".join(filter(None, settings.input_paths().values()))
        raise InputError(
            f"{quoted(places)} names {held} images but synthesize.images {images:,} takes "
            f"{images // len(CLASSES):,} of each class; add images of that class in a folder of "
            "its name, or lower synthesize.images"
        )
