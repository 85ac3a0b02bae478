"""Stage `pretrain`: learns from images without labels, where `train.recipe` does so.

Reads corpus/, synthetic/ and reports/rejected.json; writes models/pretrained/ (`model.safetensors`
with timm's names, from which `train.models.X.weights` starts), reports/pretrain/ and
reports/pretrain.json. With a recipe that learns from labels alone, these say so and nothing else
happens. Command: `dermaflux pretrain`, in several processes with `runtime.accelerate`.

Its checkpoint stays, so that a change of what is measured does not train again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.params import Params
from dermaflux.params.choices import pretrains

if TYPE_CHECKING:
    from dermaflux.classifiers.data.pretraining_set import Chosen

_MEASURES = {"probe_images"}
"""Parameters of `pretrain` that decide no weight."""


def run(params: Params) -> None:
    """Pre-train, or say that the recipe does not."""
    if pretrains(params.train.recipe):
        _pretrain(params)
        return
    facts = {
        "recipe": params.train.recipe,
        "summary": f"None: the recipe {params.train.recipe} does not pre-train.",
    }
    for folder in (paths.PRETRAINED, paths.PRETRAIN_FIGURES):
        with atomic_folder(folder) as partial:
            write_json(partial / "pretrain.json", facts)
    write_json(paths.PRETRAIN_REPORT, facts)
    print(f"pretrain: nothing was trained: the recipe {params.train.recipe} does not pre-train")


def _pretrain(params: Params) -> None:
    from dermaflux.classifiers.data import pretraining_set
    from dermaflux.classifiers.recipes import registry
    from dermaflux.classifiers.recipes.protocol import PretrainingRun
    from dermaflux.core.checkpoints import checkpoint
    from dermaflux.core.distributed import join

    recipe = registry.pretraining(params.train.recipe)
    recipe.check(params)
    processes, images = join(), pretraining_set.choose(params.pretrain.images)
    with (
        checkpoint(
            "pretrain", key(params, images), processes.main, lasting=True, output=paths.PRETRAINED
        ) as saved,
        _log(params, processes.world, processes.main) as log,
    ):
        processes.wait()
        trained = recipe.train(PretrainingRun(params, images, saved, log, processes))
        if processes.main:
            with (
                atomic_folder(paths.PRETRAINED) as folder,
                atomic_folder(paths.PRETRAIN_FIGURES) as figures,
            ):
                report = {"recipe": params.train.recipe}
                report |= {"architecture": params.pretrain.architecture}
                report |= trained.save(folder, figures)
                write_json(folder / "pretrain.json", report)
            write_json(paths.PRETRAIN_REPORT, report)
            log.metrics(_numbers(report), 0)
            for path in sorted(paths.PRETRAIN_FIGURES.iterdir()):
                log.artifact(path)
            log.outputs(paths.PRETRAINED)
            print(f"pretrain: {report['summary']}; in {paths.PRETRAINED}", flush=True)
        processes.wait()


def key(params: Params, images: Chosen) -> str:
    """Fingerprint of what decides the weights, and of nothing else."""
    from dermaflux.classifiers.model import network
    from dermaflux.core.checkpoints import fingerprint
    from dermaflux.core.code_digest import stage_digest

    model = params.train.models[params.pretrain.architecture]
    return fingerprint(
        images=[*images.real.items(), *images.synthetic.items()],
        settings=params.pretrain.model_dump(exclude=_MEASURES),
        config=network.configure(model, params.train.image_size),
        seed=params.seed,
        code=stage_digest("pretrain", recipe=params.train.recipe),
        libraries=network.libraries("torch", "timm", "transformers"),
    )


def _log(params: Params, world: int, main: bool) -> contextlib.AbstractContextManager[Any]:
    """The MLflow run in the main process, silence in the others."""
    from dermaflux.tracking import runs

    if not main:
        return contextlib.nullcontext(runs.Silent())
    section, train = params.pretrain, params.train
    parameters = {
        "seed": params.seed,
        "processes": world,
        "recipe": train.recipe,
        "image_size": train.image_size,
        "model": train.models[section.architecture].model_dump(include={"name", "options"}),
        **section.model_dump(),
    }
    # Whatever it learns from, the corpus has the images of its figures.
    used = [paths.CORPUS]
    if section.images != "real":
        used += [paths.SYNTHETIC, paths.REJECTED]
    return runs.start("training", "pretrain", parameters, used, system_metrics=True)


def _numbers(facts: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested facts, under names joined by dots."""
    found: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = float(value)
    return found
