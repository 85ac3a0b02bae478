"""Stage `finetune`: trains the generator on corpus and captions (paper section 2.2).

Reads corpus/ (splits `train` and, for the held-out loss, `validation`) and what the generator needs
of captions/ and models/backbone/. Writes models/generator/ (weights, finetune.json, loss.csv,
validation_loss.csv) and reports/finetune/grid.png. Run with `dermaflux finetune`, or on several
GPUs with `accelerate launch [...] -m dermaflux finetune`. The same lines adapt the tiny backbone on
a CPU and FLUX.1-dev on GPUs; only parameters differ. Images as `synthesize` will sample them go to
the MLflow run alone: no file of this stage depends on parameters of a later one. Where the
parameters name finished weights or released images, nothing is trained and the same folders say so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dermaflux import paths
from dermaflux.core.checkpoints import checkpoint, fingerprint
from dermaflux.core.code_digest import stage_digest
from dermaflux.core.distributed import Processes, join
from dermaflux.core.files import atomic_folder, write_json, write_text
from dermaflux.generators import registry
from dermaflux.generators.data import images as training_images
from dermaflux.generators.data.images import TrainingImages
from dermaflux.generators.protocol import FACTS, Facts, Json, Trainer, TrainingRun
from dermaflux.params import Params
from dermaflux.tracking import runs
from dermaflux.tracking.runs import Log, Silent

CURVE = "loss.csv"
VALIDATION = "validation_loss.csv"
GRID = paths.REPORTS / "finetune" / "grid.png"
_DECIDES_NO_WEIGHT = frozenset({"validation_steps"})
"""A run continues across a change of these, and of everything under `runtime`."""


def run(params: Params) -> None:
    """Train the generator, and log curve, speed and grids as an MLflow run."""
    name, processes = params.generator, join()
    trainer = registry.trainer(name)
    settings = params.finetune.settings(name)

    def run_with(log: Log) -> TrainingRun:
        return TrainingRun(
            params.finetune, settings, params.runtime.finetune, params.seed, paths.CORPUS,
            paths.CAPTIONS, paths.BACKBONE, GRID, log, processes, params.synthesize,
        )  # fmt: skip

    parameters = {"seed": params.seed, **params.finetune.chosen(name)}
    if not trainer.trains(settings):
        if processes.main:
            inputs = [paths.BACKBONE] if "backbone" in trainer.needs else []
            with _log(parameters, inputs, processes) if inputs else _silent() as log:
                install(name, trainer, run_with(log), paths.GENERATOR)
                if isinstance(log, runs.Run):
                    log.outputs(paths.GENERATOR)
        return
    parameters["processes"] = processes.world
    with _log(parameters, _inputs(trainer), processes, system_metrics=True) as log:
        finetune(name, run_with(log), paths.GENERATOR)
        if isinstance(log, runs.Run):
            log.artifact(paths.GENERATOR / CURVE)
            log.artifact(paths.GENERATOR / VALIDATION)
            log.outputs(paths.GENERATOR)


def _inputs(trainer: Trainer) -> list[Path]:
    optional = {"captions": paths.CAPTIONS, "backbone": paths.BACKBONE}
    return [paths.CORPUS, *(path for need, path in optional.items() if need in trainer.needs)]


def _log(
    parameters: dict[str, Any],
    inputs: Sequence[Path],
    processes: Processes,
    system_metrics: bool = False,
) -> contextlib.AbstractContextManager[Any]:
    """The MLflow run in the main process, silence in the others."""
    if not processes.main:
        return _silent()
    return runs.start("generator", "finetune", parameters, inputs, system_metrics=system_metrics)


def _silent() -> contextlib.AbstractContextManager[Log]:
    return contextlib.nullcontext(Silent())


def install(name: str, trainer: Trainer, run: TrainingRun, output: Path) -> None:
    """Put finished weights, or the reason why there are none, where training would write."""
    with atomic_folder(output) as partial:
        facts = {"generator": name, **trainer.install(run, partial)}
        write_json(partial / FACTS, facts)
    with atomic_folder(run.grid.parent) as partial:
        write_json(partial / FACTS, facts)
    summary = str(facts["summary"]).removeprefix("None: ").rstrip(".")
    print(f"finetune: nothing was trained: {summary}; in {output}", flush=True)


def finetune(name: str, run: TrainingRun, output: Path) -> None:
    """Train from the checkpoint or the start and write `output` and the grid.

    Raises `InputError` for an empty class, a missing caption, micro-batches that the processes
    cannot share, or a loss that is not finite.
    """
    trainer, processes = registry.trainer(name), run.processes
    captions = run.captions if "captions" in trainer.needs else None
    images = training_images.read(run.section, run.seed, run.corpus, captions)
    if processes.main and run.section.validation_images and not images.held_out:
        print("no usable image of the split validation: no held-out loss", flush=True)
    if processes.main and images.said:
        print(images.said, flush=True)
    training = trainer.prepare(run, images)
    key = _key(name, run, training.identity, images)
    with checkpoint("finetune", key, processes.main, output=output) as saved:
        processes.wait()
        curves = training.fit(saved)
        if processes.main:
            with atomic_folder(output) as partial:
                facts = {
                    "generator": name,
                    "splits": list(run.section.splits),
                    **images.facts(run.section.scales),
                    **training.save(partial),
                    "steps": len(curves.training),
                }
                _write_results(facts, curves.training, curves.events, partial)
            print(_made(facts, len(images.samples), curves.training, curves.events, output))
        processes.wait()
        if processes.main:
            saved.discard()


def _made(
    facts: Facts,
    images: int,
    training: Sequence[Mapping[str, float]],
    events: Sequence[Mapping[str, float]],
    output: Path,
) -> str:
    """The line that ends the stage."""
    losses = {"loss": training, "validation_loss": events}
    last = [
        f", {name.replace('_', ' ')} {rows[-1][name]:.4g}"
        for name, rows in losses.items()
        if rows and name in rows[-1]
    ]
    what = str(facts["summary"]).split(". ")[0]
    steps = f"{facts['steps']:,} steps on {images:,} images"
    return f"finetune: {what}; {steps}{''.join(last)}; in {output}"


def _key(name: str, run: TrainingRun, identity: Mapping[str, Json], images: TrainingImages) -> str:
    section = run.section.chosen(name)
    return fingerprint(
        code=stage_digest("finetune", generator=name),
        section={key: value for key, value in section.items() if key not in _DECIDES_NO_WEIGHT},
        seed=run.seed,
        identity=dict(identity),
        images=[
            [sample.image_id, sample.sha256, sample.label, sample.caption]
            for sample in images.samples
        ],
    )


def _write_results(
    facts: Facts,
    training: Sequence[Mapping[str, float]],
    events: Sequence[Mapping[str, float]],
    folder: Path,
) -> None:
    last = events[-1] if events else {}
    measured = {name: value for name, value in last.items() if name != "step"}
    write_json(folder / FACTS, {**facts, **measured})
    _write_curve(training, tuple(training[0]), folder / CURVE)
    names = ("step", *measured) if measured else ("step", "validation_loss")
    _write_curve(events, names, folder / VALIDATION)


def _write_curve(rows: Sequence[Mapping[str, float]], names: Sequence[str], path: Path) -> None:
    lines = [",".join(_number(row[name]) for name in names) for row in rows if names[-1] in row]
    write_text(path, "\n".join([",".join(names), *lines]) + "\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.8g}"
