"""What must hold between the sections of one parameter file. Reads nothing but the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dermaflux.errors import quoted
from dermaflux.params.arms import MIXED
from dermaflux.params.choices import COLLECTION, GENERATORS, RECIPES, generator_schema, pretrains
from dermaflux.paths import PRETRAINED_WEIGHTS

if TYPE_CHECKING:
    from dermaflux.params import Params


def check(params: Params) -> None:
    """Raise `ValueError` for sections that do not fit together."""
    wanted = 0 if params.real_fraction else params.synthetic_wanted()
    if wanted > params.synthesize.images:
        raise ValueError(
            f"ratio {params.ratio:g} x n_real {params.n_real} needs {wanted} "
            f"synthetic images but synthesize.images is {params.synthesize.images}; lower the "
            "ratio or raise synthesize.images"
        )
    for section in (params.finetune, params.synthesize):
        section.settings(params.generator).check_chosen()
    pool, trained = params.synthesize, params.finetune.settings(params.generator)
    pool.settings(params.generator).check_trained(
        trained, pool.scale, pool.conditions, pool.prompt_source
    )
    _named_models_exist(params)
    _students_learn(params)
    _weights_exist(params)
    _conditions_possible(params)
    _prompts_exist(params)
    _selector_possible(params)
    if params.generator == COLLECTION and params.synthesize.wanted is not None:
        raise ValueError(
            f"synthesize.wanted is {quoted(params.synthesize.wanted)} but released images are not "
            "sampled from prompts; set it to null"
        )
    if params.train.labels == "diagnosis" and params.real_fraction is None:
        raise ValueError(
            "train.labels 'diagnosis' has classes too rare for a balanced n_real; set "
            "real_fraction, such as 0.1"
        )
    if (
        params.train.labels == "malignancy"
        and params.promote.architecture not in params.architectures()
    ):
        raise ValueError(
            f"promote.architecture {params.promote.architecture!r} is neither in "
            "train.architectures nor in distill.students; name one of "
            f"{quoted(params.architectures())}"
        )
    if params.train.draw == "matched" and params.real_fraction is not None:
        raise ValueError(
            f"train.draw 'matched' takes equally many images of both classes but real_fraction "
            f"{params.real_fraction:g} keeps their proportions; set real_fraction to null and give "
            "n_real, or set train.draw to pooled"
        )
    _curve_possible(params)
    _splits_possible(params)
    without = [arm for arm in params.arms() if arm not in MIXED]
    if params.n_real == 0 and params.real_fraction is None and without:
        raise ValueError(
            f"n_real 0 leaves the arm {without[0]!r} without images; set train.arms"
            f"{' and distill.arms' if params.distill.students else ''} to [mixture] and "
            "n_synthetic to the number wanted"
        )


def _splits_possible(params: Params) -> None:
    """Raise `ValueError` where the generator trains on images on which classifiers are selected."""
    if "validation" in params.finetune.splits and params.ingest.policy != "as_published":
        raise ValueError(
            "finetune.splits names validation, on which classifiers are selected, but ingest.policy"
            f" is {params.ingest.policy!r}; set splits to [train], or policy to as_published to "
            "repeat a paper that has no validation part"
        )


def _curve_possible(params: Params) -> None:
    """Raise `ValueError` for a size of the curve that comes to no image."""
    for arm, images in params.curve_sizes().items():
        if not images:
            raise ValueError(
                f"train.curve: {arm} with n_real {params.n_real} is less than one image of each "
                f"class; raise the multiple to at least {1 / params.n_real:.3g}"
            )


def _named_models_exist(params: Params) -> None:
    """Raise `ValueError` for a name that `dvc.yaml` looks up in `train.models` and would not find.

    DVC does so whatever the recipe and the labels, and its own error names neither parameter.
    """
    for section in ("pretrain", "promote"):
        name = getattr(params, section).architecture
        if name not in params.train.models:
            raise ValueError(
                f"{section}.architecture {name!r} has no entry in train.models "
                f"({', '.join(sorted(params.train.models))}); name one of them"
            )


def _students_learn(params: Params) -> None:
    """Raise `ValueError` for a student without a model, or without a teacher of its own."""
    models, trained = params.train.models, params.train.architectures
    for name in params.distill.students:
        if name not in models:
            raise ValueError(
                f"the student {name!r} of distill.students has no entry in train.models "
                f"({', '.join(sorted(models))}); add one or name one of these"
            )
        if name in trained:
            raise ValueError(
                f"{name!r} is in train.architectures and in distill.students, and both would "
                "write the same folder; give the student an entry of its own in train.models"
            )
    if params.distill.students and params.distill.teacher not in trained:
        raise ValueError(
            f"distill.teacher {params.distill.teacher!r} is not one of train.architectures "
            f"{quoted(trained)}; name one of them"
        )
    if params.distill.students and not {"mixture", "real"} & {*params.train.arms}:
        raise ValueError(
            f"train.arms {quoted(params.train.arms)} train no teacher for distill.students; add "
            "mixture or real"
        )
    own, warmup = params.distill.epochs, params.train.warmup_epochs
    if params.distill.students and own is not None and warmup > own:
        raise ValueError(
            f"distill.epochs {own} is below train.warmup_epochs {warmup}, so training would end "
            "before its full learning rate; raise it or lower the other"
        )


def _weights_exist(params: Params) -> None:
    """Raise `ValueError` where the stage `pretrain` lacks its encoder, or runs in vain or never."""
    begun = [name for name in params.architectures() if params.train.models[name].pretrained_here]
    if pretrains(params.train.recipe):
        if not begun:
            raise ValueError(
                f"train.recipe {params.train.recipe!r} pre-trains an encoder but none of "
                f"{quoted(params.architectures())} starts from it; add a model with pretrained: "
                f"true and weights: {PRETRAINED_WEIGHTS}, or set the recipe to supervised"
            )
        return
    for name in begun:
        others = " or ".join(filter(pretrains, RECIPES))
        raise ValueError(
            f"train.models.{name}.weights {quoted(params.train.models[name].weights)} is "
            f"what pre-training writes but train.recipe is {params.train.recipe!r}; set it "
            f"to {others}, or name other weights"
        )


def _conditions_possible(params: Params) -> None:
    """Raise `ValueError` for a pool that the generator cannot make, or nothing can learn."""
    section, settings = params.synthesize, params.synthesize.settings(params.generator)
    if section.conditions != "none":
        return
    if not settings.unconditional:
        able = [name for name in GENERATORS if generator_schema(name, "Synthesize").unconditional]
        others = f", or choose the generator {' or '.join(able)}" if able else ""
        raise ValueError(
            f"synthesize.conditions is 'none' but the generator {params.generator!r} samples no "
            f"image without a class; set conditions to malignancy or diagnosis{others}"
        )
    added = params.ratio if params.n_synthetic is None else params.n_synthetic
    mixed = [arm for arm in params.arms() if arm in MIXED]
    if mixed and added:
        raise ValueError(
            f"synthesize.conditions 'none' gives synthetic images no class but the arm "
            f"{mixed[0]!r} trains a classifier on them; leave it out, or set conditions to "
            "malignancy or diagnosis"
        )


def _selector_possible(params: Params) -> None:
    """Raise `ValueError` where `synthesize.select` has no candidates, or no classifier to ask."""
    select, architecture = params.synthesize.select, params.train.architectures[0]
    if select == "none":
        return
    chosen, fix = f"synthesize.select is {select!r}", "or set synthesize.select to none"
    if not params.synthesize.settings(params.generator).samples:
        raise ValueError(
            f"{chosen} but the generator {params.generator!r} samples no candidates; choose another"
            f" generator, {fix}"
        )
    if params.n_real == 0 and params.real_fraction is None:
        raise ValueError(
            f"{chosen} but n_real 0 leaves its classifier without images; raise n_real, {fix}"
        )
    if params.train.models[architecture].pretrained_here:
        raise ValueError(
            f"{chosen} but its classifier {architecture!r}, the first of train.architectures, "
            f"starts from pre-training, which may see the pool; put another one first, {fix}"
        )


def _prompts_exist(params: Params) -> None:
    """Raise `ValueError` for prompts that no caption can give, or that name no diagnosis."""
    section, settings = params.synthesize, params.synthesize.settings(params.generator)
    source, captions = section.prompt_source, settings.reads_captions
    if settings.samples and source == "file" and (not captions or section.conditions == "none"):
        who = (
            f"the generator {params.generator!r} reads none"
            if not captions
            else "synthesize.conditions 'none' asks with an empty one"
        )
        raise ValueError(
            f"synthesize.prompt_source 'file' names prompts but {who}; set it to captions"
        )
    if captions and source == "held_out" and not params.caption.held_out_fraction:
        raise ValueError(
            "synthesize.prompt_source 'held_out' needs captions that training never sees but "
            "caption.held_out_fraction is 0; raise it or set prompt_source to captions"
        )
    mixed = params.train.labels == "diagnosis" and {*MIXED} & {*params.arms()}
    if mixed and section.conditions == "malignancy" and (source == "label" or not captions):
        without = "prompt_source 'label'" if captions else "conditions 'malignancy'"
        fix = "set it to captions, set synthesize.conditions" if captions else "set it"
        raise ValueError(
            "train.labels 'diagnosis' mixes in synthetic images with a diagnosis but "
            f"synthesize.{without} gives them none; {fix} to diagnosis, or leave mixture out of "
            "train.arms"
        )
