"""Command `queue`: a whole grid into DVC's own queue, after saying what it will take.

Reads `grids/<name>.yaml`, `params.yaml` and, where there is one, the sizes of `corpus/`;
writes DVC's queue only. Command: `dermaflux queue figure4 --dry-run`. A run whose name is queued,
running or finished on this commit is left out, so the same command continues a broken-off sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.sweeps import grid, plan, probe


def run(name: str, dry: bool) -> None:
    """Check every run of a grid, print what it takes, and queue what is not queued yet."""
    definition = grid.load(name)
    runs = grid.runs(name, definition)
    raw = _raw()
    resolved = plan.resolve(raw, runs)
    counts = _corpus_counts()
    training = counts["train"] if counts else None
    for run, params in zip(runs, resolved, strict=True):
        if training is not None:
            plan.check_counts(run.name, params, training)
    print(f"{name}: {definition.description} ({definition.source})")
    _estimate(resolved, counts)
    known = _known()
    waiting = []
    for run in runs:
        state = known.get(run.name)
        print(f"  {run.name}{f': {state}, left as it is' if state else ''}")
        waiting += [] if state else [run]
    if dry:
        print(f"{len(waiting)} of {len(runs)} experiments would be queued; nothing was")
        return
    for run, params in zip(runs, resolved, strict=True):
        if run in waiting:
            _queue(run, params, raw)
    print(f"{len(waiting)} of {len(runs)} experiments queued")
    print("start them:   dvc queue start -j 1      (-j N for N at a time)")
    print("watch them:   dvc queue status")
    print(f"then read:    dermaflux results {name}")


def _raw() -> dict[str, Any]:
    from ruamel.yaml import YAML

    from dermaflux.params.load import load

    load()  # the sentence about a broken file comes from here
    raw: dict[str, Any] = YAML(typ="safe").load(Path("params.yaml").read_text(encoding="utf-8"))
    return raw


def _corpus_counts() -> dict[str, dict[str, int]] | None:
    """Split -> label -> images, from the table's metadata; None without a corpus."""
    if not paths.CORPUS.is_dir():
        return None
    found = {}
    for split in ("train", "validation"):
        labels = table.metadata(paths.CORPUS, ["label"], split)["label"]
        found[split] = {str(name): int(count) for name, count in labels.value_counts().items()}
    return found


def _estimate(resolved: Sequence[Params], counts: dict[str, dict[str, int]] | None) -> None:
    images = _classified(counts, "train")
    by_run = [plan.trainings(params, images) for params in resolved]
    shared = plan.distinct(by_run)
    validation = _classified(counts, "validation") or 0
    work = plan.passes(shared, min(validation, resolved[0].train.selection_images or validation))
    asked = sum(len(one) for one in by_run)
    print(
        f"{len(resolved)} experiments, {len(shared)} classifiers to train "
        f"({asked - len(shared)} more are shared and taken from their checkpoints), "
        f"{sum(trained for trained, _ in work.values()) / 1e6:,.2f} million training images"
    )
    if counts is None and any(params.real_fraction for params in resolved):
        print("real_fraction counts no real images here: there is no corpus/ to take a share of")
    found = {}
    for architecture in work:
        params = next(p for p in resolved if architecture in p.train.architectures)
        found[architecture] = probe.rates(params, architecture)
        model = params.train.models[architecture].name
        print(
            f"  {architecture} ({model}): {found[architecture][0]:,.4g} images/s trained, "
            f"{found[architecture][1]:,.4g} images/s scored, measured here at "
            f"{params.train.image_size} px, batch {params.train.batch}"
        )
    scored = "and scoring validation images" if counts else "without validation"
    print(
        f"about {plan.duration(plan.seconds(work, found))} one after another on this device for "
        f"training {scored}; corpus, generator, evaluation and what is trained already are not in "
        "this figure"
    )


def _classified(counts: dict[str, dict[str, int]] | None, split: str) -> int | None:
    if counts is None:
        return None
    return sum(counts[split].get(label, 0) for label in CLASSES)


def _known() -> dict[str, str]:
    """Names of experiments of this commit, and whether each is queued, running or finished."""
    from dvc.repo import Repo

    from dermaflux.sweeps import dvc_experiments

    head = dvc_experiments.commit("HEAD")
    found = {}
    with Repo() as repo:
        tasks = repo.experiments.celery_queue
        for entry in tasks.iter_queued():
            if entry.baseline_rev == head:
                found[entry.name] = "queued"
        for entry in tasks.iter_active():
            if entry.baseline_rev == head:
                found[entry.name] = "running"
    return {**found, **dict.fromkeys(dvc_experiments.experiments(head), "finished")}


def _queue(run: grid.Run, params: Params, raw: dict[str, Any]) -> None:
    """One `dvc exp run --queue`, in this process: starting DVC takes longer than queueing."""
    from dvc.cli import main

    stages = ["evaluate", *(["zero_shot"] if params.zero_shot.run else [])]
    changes = [f"--set-param={value}" for value in grid.command_line(raw, run.overrides)]
    if main(["exp", "run", "--queue", "--quiet", "--name", run.name, *changes, *stages]) != 0:
        raise InputError(
            f"DVC did not queue {run.name} (its reason stands above); mend that and run the same "
            "command again, which goes on from here"
        )
