"""Command `queue`: puts a whole grid into DVC's own queue, after printing what it will take.

Reads `grids/<name>.yaml`, `params.yaml` and, where there is one, the sizes of `corpus/`;
writes DVC's queue only. Command: `dermaflux queue figure4 --dry-run`. A run whose name is queued,
running or finished on this commit is skipped, so the same command continues an interrupted sweep.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.classifiers.data import real_draws
from dermaflux.core import table
from dermaflux.core.devices import automatic_device
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, one_line, quoted
from dermaflux.params import Params, load
from dermaflux.sweeps import grid, plan, probe, seeds_needed
from dermaflux.sweeps.leaderboard import available

if TYPE_CHECKING:
    import pandas as pd


def run(name: str, dry: bool) -> None:
    """Check every run of a grid, print what it takes, and queue what is not queued yet."""
    definition = grid.load(name)
    runs = grid.runs(name, definition)
    raw = _raw()
    resolved = plan.resolve(raw, runs)
    corpus = _corpus()
    runs, resolved = _possible(name, runs, resolved, corpus, ranked=bool(definition.pools))
    _check_paths(runs, resolved)
    print(one_line(f"{name}: {definition.description} ({definition.source})"))
    if definition.fidelity:
        print(f"pools to make and audit: {len(runs)}; no classifier is trained, no time estimated")
    else:
        for run, params in zip(runs, resolved, strict=True):
            drawable = _drawable(params, corpus)
            if drawable is not None:
                plan.check_counts(run.name, params, drawable)
        _estimate(resolved, corpus)
    states = _states()
    waiting = []
    for run in runs:
        state = states.get(run.name)
        print(f"  {run.name}{f': {state}, skipped' if state else ''}")
        if not state:
            waiting.append(run)
    if dry:
        print(f"{len(waiting)} of {len(runs)} experiments would be queued; dry run, none was")
        return
    for run, params in zip(runs, resolved, strict=True):
        if run in waiting:
            _queue(run, params, raw, bool(definition.fidelity))
    print(f"{len(waiting)} of {len(runs)} experiments queued")
    print("start them:   dvc queue start -j 1      (-j N for N at a time)")
    print("watch them:   dvc queue status")
    print(f"then read:    dermaflux results {name}")


def _possible(
    name: str,
    runs: Sequence[grid.Run],
    resolved: Sequence[Params],
    corpus: pd.DataFrame | None,
    ranked: bool,
) -> tuple[list[grid.Run], list[Params]]:
    """Runs whose images can be had here; the others are told, and may come later.

    `ranked`: whether they are the pools of a leaderboard, which need certain arms.
    """
    here, reasons = [], []
    for run, params in zip(runs, resolved, strict=True):
        reason = available.absent(params)
        if reason:
            reasons.append(reason)
            print(f"{run.name} is not run: {reason}")
            continue
        if ranked:
            available.check(run, params, _drawable(params, corpus))
        available.check_classes(run, params)
        here.append((run, params))
    if not here:
        raise InputError(
            f"nothing is queued: the images of none of the {len(runs)} runs of "
            f"{grid.FOLDER / name}.yaml are here, since {reasons[0]}"
        )
    return [run for run, _ in here], [params for _, params in here]


def _raw() -> dict[str, Any]:
    raw = load.read()
    load.parse(raw)  # raises the InputError of a broken file
    return raw


def _check_paths(runs: Sequence[grid.Run], resolved: Sequence[Params]) -> None:
    """Refuse a relative path that a run would not find: it executes in a copy of the checkout.

    The copy holds what git and DVC track, nothing else.
    """
    from dermaflux.sweeps import dvc_experiments

    known: dict[str, bool] = {}
    for run, params in zip(runs, resolved, strict=True):
        for parameter, value in params.input_paths().items():
            if Path(value).is_absolute() or not Path(value).exists():
                continue
            if value not in known:
                known[value] = dvc_experiments.tracked(value)
            if not known[value]:
                raise InputError(
                    f"nothing is queued: {run.name}: {parameter} {quoted(value)} is neither in git "
                    "nor tracked by DVC, so the copy of the repository in which a queued run "
                    f"executes lacks it; set it to {quoted(os.path.abspath(value))}"
                )


def _corpus() -> pd.DataFrame | None:
    """Metadata of benign and malignant images, with their split; None without a corpus."""
    if not paths.CORPUS.is_dir():
        return None
    rows = table.metadata(paths.CORPUS, (*real_draws.COLUMNS, "split"))
    return rows[rows["label"].isin(CLASSES)]


def _drawable(params: Params, corpus: pd.DataFrame | None) -> dict[str, int] | None:
    """Label -> images of the training split that a run's draw can take."""
    if corpus is None:
        return None
    return real_draws.available(params, corpus[corpus["split"] == "train"], CLASSES)


def _estimate(resolved: Sequence[Params], corpus: pd.DataFrame | None) -> None:
    images = _images(corpus, "train")
    by_run = [plan.trainings(params, images, _drawable(params, corpus)) for params in resolved]
    shared = plan.distinct(by_run)
    validation = _images(corpus, "validation") or 0
    work = plan.passes(shared, min(validation, resolved[0].train.selection_images or validation))
    total = sum(len(trainings) for trainings in by_run)
    print(
        f"{len(resolved)} experiments, {len(shared)} classifiers to train "
        f"({total - len(shared)} more are shared and taken from their checkpoints), "
        f"{sum(trained for trained, _ in work.values()) / 1e6:,.2f} million training images"
    )
    if corpus is None and any(params.real_fraction for params in resolved):
        print("real images of real_fraction are not in these counts: there is no corpus/ yet")
    if resolved[0].train.precision == "bf16" and automatic_device().type == "cpu":
        print(
            "no time is estimated: train.precision is bf16, in which one step can take minutes on "
            "this CPU; run the command on the machine with the GPU that will train"
        )
        return
    rates = {}
    for architecture in work:
        params = next(p for p in resolved if architecture in p.architectures())
        trained, scored = rates[architecture] = probe.rates(params, architecture)
        model = params.train.models[architecture].name
        print(
            f"  {architecture} ({model}): {trained:,.4g} images/s in training, "
            f"{scored:,.4g} images/s in scoring, measured on this machine at "
            f"{params.train.image_size} px, batch {params.training(architecture).batch}"
        )
    seconds = plan.seconds(work, rates)
    scope = "and scoring of validation images" if corpus is not None else "without validation"
    print(
        f"about {plan.duration(seconds)} one after another on this device for "
        f"training {scope}; corpus, generator and evaluation come on top, finished trainings are "
        "not subtracted"
    )
    for line in seeds_needed.lines(load.load(), seconds / len(resolved[0].train.seeds)):
        print(line)


def _images(corpus: pd.DataFrame | None, split: str) -> int | None:
    return None if corpus is None else int((corpus["split"] == split).sum())


def _states() -> dict[str, str]:
    """Names of experiments of this commit, and whether each is queued, running or finished."""
    from dermaflux.sweeps import dvc_experiments

    head = dvc_experiments.commit("HEAD")
    with dvc_experiments.repository() as repo:
        tasks = repo.experiments.celery_queue
        states = {
            entry.name: "queued" for entry in tasks.iter_queued() if entry.baseline_rev == head
        }
        states |= {
            entry.name: "running" for entry in tasks.iter_active() if entry.baseline_rev == head
        }
    return states | dict.fromkeys(dvc_experiments.finished().get(head, {}), "finished")


def _queue(run: grid.Run, params: Params, raw: dict[str, Any], pool_alone: bool) -> None:
    """One `dvc exp run --queue` in this process, since starting DVC takes longer than queueing."""
    from dvc.cli import main

    stages = ["evaluate"]
    stages += ["evaluate_students"] if params.distill.students else []
    stages += ["zero_shot"] if params.zero_shot.run else []
    stages = ["audit"] if pool_alone else stages
    changes = [f"--set-param={value}" for value in grid.command_line(raw, run.overrides)]
    if main(["exp", "run", "--queue", "--quiet", "--name", run.name, *changes, *stages]) != 0:
        raise InputError(
            f"DVC did not queue {run.name}: see the error above; fix it and run the same command "
            "again, which continues from here"
        )
