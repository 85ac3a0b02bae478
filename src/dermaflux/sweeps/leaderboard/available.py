"""Whether a pool of a grid can be run and ranked, before anything is queued.

Reads names of released files; writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from dermaflux.errors import InputError
from dermaflux.generators import requirements
from dermaflux.params import Params
from dermaflux.statistics import evidence
from dermaflux.statistics.learning_curve import FEWEST_SIZES
from dermaflux.sweeps import plan
from dermaflux.sweeps.grid import Run


def absent(params: Params) -> str:
    """Why a pool's images cannot be made here, in a sentence without its end; empty where not."""
    try:
        for section in (params.finetune, params.synthesize):
            section.settings(params.generator).check_inputs()
    except ValueError as error:
        # Pages are published, and where a checkout lies is nobody's business.
        return str(error).replace(f"{os.getcwd()}{os.sep}", "")
    return ""


def why_missing(raw: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, str]:
    """Run that is not finished -> why."""
    reasons = {}
    for run in runs:
        try:
            (params,) = plan.resolve(dict(raw), [run])
            reasons[run.name] = absent(params) or "not finished"
        except InputError as error:
            reasons[run.name] = str(error).removeprefix("nothing is queued: ")
    return reasons


def check(run: Run, params: Params, training_split: Mapping[str, int] | None) -> None:
    """Raise `InputError` for a run whose images cannot be ranked.

    `training_split`: class -> images, where there is a corpus.
    """
    arms = params.training(params.train.architectures[0]).arms
    lacking = [arm for arm in ("real", "mixture") if arm not in arms]
    if lacking or params.train.labels != "malignancy":
        what = f"arm {lacking[0]}" if lacking else "AUC of benign against malignant"
        fix = f"add {lacking[0]} to train.arms" if lacking else "set train.labels to malignancy"
        raise InputError(
            f"nothing is queued: {run.name} has no {what}, and pools are ranked by it; {fix}"
        )
    alone = evidence.real_sizes(params)[0]
    short = plan.shortages(params, training_split, arms)
    sizes = {images for arm, images in alone.items() if arm in arms and arm not in short}
    if len(sizes) < FEWEST_SIZES:
        left_out = f" ({next(iter(short.values())).rstrip('.')})" if short else ""
        raise InputError(
            f"nothing is queued: {run.name} trains on real images alone at {len(sizes)} sizes"
            f"{left_out} and an exchange rate needs {FEWEST_SIZES}; add smaller ones to "
            "train.curve, and set n_real"
        )
    if not params.synthetic_wanted():
        raise InputError(
            f"nothing is queued: {run.name} adds no synthetic image to its {params.n_real} real "
            "ones, so there is nothing to rank; raise ratio"
        )


def check_classes(run: Run, params: Params) -> None:
    """Raise `InputError` for released images of too few classes, before any is opened."""
    try:
        requirements.require_classes(params)
    except InputError as error:
        sentence = f"nothing is queued: {run.name}: {error}, or leave the run out"
        raise InputError(sentence) from None
