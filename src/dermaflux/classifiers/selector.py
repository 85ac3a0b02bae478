"""Stage `selector`: the classifier that chooses synthetic images, for `synthesize.select`.

Reads the training split of corpus/, never an image of another split; writes models/selector/: the
classifier as a program of torch.export, which `synthesize` runs without this code, and
`selector.json`. Where nothing is chosen that file says so, and nothing else is loaded.

It is the arm `real` of the first architecture and the first seed, with the same images in the same
order, but for its epoch: the last one, since the best is found on validation images. So it knows no
real image that the experiment's own classifiers do not. Cross-entropy is its recipe always: another
may start from weights that were learned from the pool. Command: `dermaflux selector`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.params import Params

if TYPE_CHECKING:
    from dermaflux.classifiers.data.training_set import CellImages, Gate
    from dermaflux.classifiers.train import Cell
    from dermaflux.classifiers.train.loop import TrainingResult

_FACTS = "selector.json"


def run(params: Params, gate: Gate) -> None:
    """Train the selector on images that pass the gate, or say that nothing is chosen."""
    if params.synthesize.select != "none":
        _train(params, gate)
        return
    with atomic_folder(paths.SELECTOR) as partial:
        write_json(partial / _FACTS, {"select": params.synthesize.select})
    print("selector: nothing was trained: synthesize.select is none")


def _train(params: Params, gate: Gate) -> None:
    from dermaflux.classifiers.model import network, program
    from dermaflux.classifiers.train import loop
    from dermaflux.core.checkpoints import checkpoint, fingerprint
    from dermaflux.core.code_digest import stage_digest
    from dermaflux.tracking import runs

    cell = _cell(params, gate)
    facts = _facts(params, cell)
    key = fingerprint(arm=cell.key("real"), code=stage_digest("selector"))
    with (
        checkpoint("selector", key, lasting=True, output=paths.SELECTOR) as saved,
        runs.start("training", "selector", facts, [paths.CORPUS]) as log,
    ):
        result = loop.recall(saved) or _fit(cell, saved, log)
        net = network.build(cell.config)
        net.load_state_dict(result.weights)
        with atomic_folder(paths.SELECTOR) as partial:
            program.save(net, cell.config, partial / paths.SELECTOR_PROGRAM.name)
            write_json(partial / _FACTS, facts)
        log.outputs(paths.SELECTOR)
    print(
        f"selector: {cell.architecture} trained on {facts['n_real']:,} real images, loss "
        f"{result.history[-1]['loss']:.3f} after {result.epoch} epochs; in {paths.SELECTOR}"
    )


def _cell(params: Params, gate: Gate) -> Cell:
    """The cell of the first architecture and seed, with its real images alone."""
    from dermaflux.classifiers.model import network, pretrained
    from dermaflux.classifiers.train import Cell

    architecture, seed = params.train.architectures[0], params.train.seeds[0]
    model, side = params.train.models[architecture], params.train.image_size
    network.check(network.configure(model, side))
    weights = pretrained.locate(model)
    drawn = images(params, seed, gate)
    config = network.configure(model, side, drawn.classes)
    settings = params.training(architecture).model_copy(update={"recipe": "supervised"})
    return Cell(params, architecture, seed, settings, model, weights, config, drawn)


def images(params: Params, seed: int, gate: Gate) -> CellImages:
    """The real images of the arm `real` of a seed; there are no others, and none to select on.

    Of the validation split no more is read than which diagnoses it has, where these are the
    classes. Raises `InputError` where the training split is too small.
    """
    import numpy as np

    from dermaflux.classifiers.data import samples, training_set

    drawn = training_set.draw(params, seed, ["real"])
    classes, chosen = drawn.classes, drawn.image_ids
    gate(params, chosen, [], [])
    side = params.train.image_size
    real = samples.load(paths.CORPUS, drawn.rows, chosen, "train", side, classes)
    none = real.part(0, 0)
    everything = {"real": np.arange(len(chosen))}
    added = dict.fromkeys(range(len(classes)), 0)
    return training_set.CellImages(classes, real, everything, none, none, added, seed, {})


def _fit(cell: Cell, saved: Any, log: Any) -> TrainingResult:
    from dermaflux.classifiers.recipes.classification.supervised import Unselected
    from dermaflux.classifiers.train import loop

    return loop.fit(
        Unselected(cell.config, cell.plan("real")),
        cell.model,
        cell.settings_of("real"),
        cell.images.of("real"),
        cell.images.validation,
        cell.seed,
        saved,
        log,
        start=cell.start("real"),
    )


def _facts(params: Params, cell: Cell) -> dict[str, Any]:
    """What selector.json and the MLflow run say."""
    labels = Counter(cell.images.corpus.labels.tolist())
    return {
        "select": params.synthesize.select,
        "architecture": cell.architecture,
        "seed": cell.seed,
        "n_real": len(cell.images.corpus.image_ids),
        "images": {name: labels[number] for number, name in enumerate(cell.images.classes)},
        "epochs": cell.settings.epochs,
        "image_size": params.train.image_size,
    }
