"""What later stages would refuse, known as soon as `ingest` has counted the corpus.

Each condition is defined where it must hold and is checked here with the counts alone. `ingest`
prints what is not met. Captions that cost money are not begun for a corpus that `validate` would
refuse, since another corpus needs other captions; what other parameters would mend loses no work.
Reads the metadata of corpus/; writes nothing and decides no byte of any output, so the stages that
call this need not depend on the parameters that are read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from dermaflux.classifiers.data.real_draws import RealDraws
    from dermaflux.params import Params

_COLUMNS = ("image_id", "label", "diagnosis", "split", "source", "scale", "modality", "skin_tone")


def warn(params: Params) -> None:
    """Print what is not met, and which arms the training split is too small for, a line each."""
    for sentence in unmet(params):
        print(f"warning: a later stage will stop: {sentence}", flush=True)
    for sentence in (*shortages(params), *few_sizes(params)):
        print(f"note: {sentence}", flush=True)


def require_balance(params: Params) -> None:
    """Raise `InputError` where `validate` would refuse the corpus for its label balance."""
    for sentence in _balance(params, table.metadata(paths.CORPUS, _COLUMNS)):
        raise InputError(f"caption does not start, since validate would stop: {sentence}")


def shortages(params: Params) -> list[str]:
    """A sentence for each arm that `train` will not train as its name says."""
    try:
        draws = _draws(params, table.metadata(paths.CORPUS, _COLUMNS))
    except InputError:  # which `unmet` tells
        return []
    return list(draws.shortages.values())


def few_sizes(params: Params) -> list[str]:
    """A sentence where too few numbers of real images will be trained on for an exchange rate."""
    from dermaflux.statistics import evidence
    from dermaflux.statistics.learning_curve import FEWEST_SIZES

    try:
        short = _draws(params, table.metadata(paths.CORPUS, _COLUMNS)).shortages
    except InputError:  # which `unmet` tells
        return []
    arms, (sizes, added) = set(params.arms()) - set(short), evidence.real_sizes(params)
    different = len({images for arm, images in sizes.items() if arm in arms})
    if not added or not {"real", "mixture"} <= arms or different >= FEWEST_SIZES:
        return []
    return [
        "what a synthetic image is worth in real ones will not be known: that takes real images "
        f"alone at {FEWEST_SIZES} numbers, and there are {different}; add more_real to train.arms "
        "or sizes to train.curve"
    ]


def unmet(params: Params) -> Iterator[str]:
    """A sentence for each condition of a later stage that corpus and parameters do not meet."""
    from dermaflux.generators import requirements

    corpus = table.metadata(paths.CORPUS, _COLUMNS)
    yield from _balance(params, corpus)
    training = corpus[corpus["split"] == "train"]
    checks: list[Callable[[], object]] = [
        lambda: _generator(params, training),
        lambda: _pool_shares(params, training),
        lambda: _shown(params, training),
        lambda: requirements.require_room(params),
        lambda: _audit(params, training),
        lambda: _pretraining(params),
        lambda: _cells(params, corpus),
        lambda: _promote(params),
    ]
    told = set[str]()
    for check in checks:
        try:
            check()
        except InputError as error:
            if str(error) not in told:  # two checks may rest on the same images
                yield str(error)
            told.add(str(error))


def _balance(params: Params, corpus: pd.DataFrame) -> Iterator[str]:
    empty = list(_classes_of_splits(corpus))
    yield from empty or _shares(params, corpus)


def _classes_of_splits(corpus: pd.DataFrame) -> Iterator[str]:
    """Splits without an image of a class; `validate` calls this a wrong label balance."""
    sizes = corpus.groupby(["split", "label"]).size()
    for split in table.SPLITS:
        counts = {label: int(sizes.get((split, label), 0)) for label in CLASSES}
        if not all(counts.values()):
            fix = {
                "train": "add images",
                "validation": "add images of other patients or raise ingest.validation_fraction",
                "test": "add test images, or images of other patients if the test part is drawn",
            }[split]
            yield (
                f"the {split} split holds {counts['benign']} benign and {counts['malignant']} "
                f"malignant images and needs at least 1 of each; {fix}"
            )


def _shares(params: Params, corpus: pd.DataFrame) -> Iterator[str]:
    """Label balances of `validate`."""
    from dermaflux.validation.corpus_suite import label_balances

    for check in label_balances(params, corpus):
        ((column, part),) = (check.row_condition or {}).items()
        share = float((corpus.loc[corpus[column] == part, "label"] == "malignant").mean())
        if not check.arguments["min_value"] <= share <= check.arguments["max_value"]:
            yield (
                f"{share:.1%} of the {part} images are malignant but validate requires that "
                f"{check.description}; correct the data or the limits in the section validate"
            )


def _generator(params: Params, training: pd.DataFrame) -> None:
    """Images for `finetune`, where it trains, and the files that it or `synthesize` takes."""
    from dermaflux.generators import registry, requirements
    from dermaflux.generators.data.images import check_scales, matched

    if registry.trainer(params.generator).trains(params.finetune.settings(params.generator)):
        check_scales(training, params.finetune.scales)
        matched(training, params.finetune, params.seed)
    try:
        for section in (params.finetune, params.synthesize):
            section.settings(params.generator).check_inputs()
    except ValueError as error:
        raise InputError(str(error)) from None
    requirements.require_classes(params)


def _pool_shares(params: Params, training: pd.DataFrame) -> dict[str, float] | None:
    """Class -> share of the pool asked to show it; None where nothing is asked for or sampled."""
    from dermaflux.generators.data.images import images_per_class
    from dermaflux.generators.pool import plan

    section = params.synthesize
    if section.conditions == "none" or not params.samples():
        return None
    return plan.shares(section.proportions, images_per_class(training, section.column))


def _shown(params: Params, training: pd.DataFrame) -> None:
    """Whether `finetune` takes an image of each class that the pool is asked to show."""
    from dermaflux.generators import registry
    from dermaflux.generators.data import images

    section = params.finetune
    shares = _pool_shares(params, training)
    if shares is None or "captions" in registry.generator(params.generator).needs:
        return  # which captions are held out is not known yet
    rows, _ = images.matched(images.labelled(paths.CORPUS), section, params.seed)
    chosen = images.select(rows, section.scales, section.maximum_images, params.seed)
    shown = {getattr(sample, params.synthesize.column) for sample in chosen}
    if missing := [name for name in shares if name not in shown]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"synthesize asks for the class {quoted(missing[0])}{more} but the {len(chosen):,} "
            f"images of finetune.scales {section.scales} and finetune.maximum_images "
            f"{section.maximum_images} show none of it; raise maximum_images, add a scale, or "
            "leave it out of synthesize.proportions"
        )


def _audit(params: Params, training: pd.DataFrame) -> None:
    from dermaflux.audit import image_sets, trunks

    image_sets.check_classes(training["label"], paths.CORPUS)
    trunks.open_trunk(params.audit)


def _pretraining(params: Params) -> None:
    """Encoder, mask and models, where the recipe pre-trains."""
    from dermaflux.params.choices import pretrains

    if pretrains(params.train.recipe):
        from dermaflux.classifiers.recipes import registry

        registry.pretraining(params.train.recipe).check(params)


def _cells(params: Params, corpus: pd.DataFrame) -> None:
    """Models, real images and synthetic images of `train`."""
    from dermaflux.classifiers.data import real_draws, subset
    from dermaflux.classifiers.model import network
    from dermaflux.params import ENLARGED, MIXED

    section = params.train
    for architecture in params.architectures():
        network.configure(section.models[architecture], section.image_size)
    draws = _draws(params, corpus)
    if section.draw == "matched":
        real_draws.judges(corpus[corpus["split"] == "validation"], section)
    if set(ENLARGED) & set(params.arms()):
        total = params.synthetic_wanted(sum(draws.counts["real"].values()))
        subset.check_pool(total, params.synthesize.images)
        if set(MIXED) & set(params.arms()):
            _check_pool_classes(params, corpus[corpus["split"] == "train"], draws.added)


def _draws(params: Params, corpus: pd.DataFrame) -> RealDraws:
    """How many real images the arms will train on; raises `InputError` where there are too few."""
    from dermaflux.classifiers.data import diagnoses, real_draws

    training, classes = corpus[corpus["split"] == "train"], CLASSES
    if params.train.labels == "diagnosis":
        validation = corpus[corpus["split"] == "validation"]
        least = params.train.minimum_diagnosis_images
        classes = diagnoses.choose(training, validation, least).classes
    held = real_draws.available(params, training, classes)
    return real_draws.choose(params, held, params.arms())


def _check_pool_classes(params: Params, training: pd.DataFrame, added: Mapping[str, int]) -> None:
    """Whether the pool will hold the `added` synthetic images of each class."""
    from dermaflux.classifiers.data import subset
    from dermaflux.generators import registry

    shares, column = _pool_shares(params, training), params.synthesize.column
    wanted = subset.column(added)
    if shares is None:
        return
    if wanted == "label":
        planned = _shares_of_labels(params, training)
    elif column == wanted:
        planned = {name: shares.get(name, 0.0) for name in added}
    elif "captions" in registry.generator(params.generator).needs:
        return  # the diagnoses are those of the images that the captions describe
    else:
        planned = dict.fromkeys(added, 0.0)
    subset.check_pool_classes(added, planned, params.synthesize.images)


def _shares_of_labels(params: Params, training: pd.DataFrame) -> dict[str, float]:
    """Label -> share of the pool, as far as the shares of its classes say it; empty for none."""
    shares, column = _pool_shares(params, training), params.synthesize.column
    if shares is None:
        return {}
    if column == "label":
        return {name: shares.get(name, 0.0) for name in CLASSES}
    labels = training[training["label"].isin(CLASSES)].groupby(column)["label"]
    of = labels.value_counts(normalize=True)
    return {
        name: sum(share * of.get((part, name), 0.0) for part, share in shares.items())
        for name in CLASSES
    }


def _promote(params: Params) -> None:
    from dermaflux.registry import candidates

    if params.train.labels == "malignancy":
        candidates.learned_arms(params)
