"""What a notebook needs: open a corpus, sample images, predict with the champion, read results.

`import dermaflux` offers these functions. They read what the stages wrote below the working
directory, and its params.yaml; they write nothing. docs/api.md holds examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from dermaflux import paths
from dermaflux.errors import InputError, one_line, quoted
from dermaflux.params import Params
from dermaflux.params.load import load, parse

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    from PIL import Image

    from dermaflux.core.arrays import Pixels

    ImageLike: TypeAlias = str | Path | bytes | Image.Image | Pixels


def open_corpus(folder: str | Path = paths.CORPUS, split: str | None = None) -> datasets.Dataset:
    """A table of images, real or synthetic, as a `datasets.Dataset`.

    Args:
        folder: `corpus`, or `synthetic`, as the stages wrote it.
        split: `train`, `validation` or `test`; None is all of them. The pool has `train` only.

    Returns:
        One row per image. The column `image` decodes to a PIL image when it is read; the other
        columns are those of `dermaflux.core.table.COLUMNS`.

    Raises:
        InputError: the split is unknown, or the folder has no shards of it, or edited ones.
    """
    from dermaflux.core import table

    if split not in (None, *table.SPLITS):
        raise InputError(
            f"split is {quoted(split)}; choose one of {', '.join(table.SPLITS)}, or None"
        )
    shards = table.shards(Path(folder), split)
    for path in shards:
        table.check_shard(path)

    import datasets

    return datasets.load_dataset(  # nosec B615 # shards of this checkout, checked above
        "parquet", data_files=[str(path) for path in shards], split="train"
    )


class ImageSampler:
    """A generator that is ready to sample; `open_generator` returns one."""

    def __init__(self, sample: Callable[[Sequence[str], Sequence[int]], Pixels]) -> None:
        """Wrap a function of prompts and seeds; it returns uint8 (B, H, W, 3)."""
        self._sample = sample

    def sample(self, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> Pixels:
        """Sample one image per prompt.

        Args:
            prompts: B texts. The words `benign` and `malignant` stand for the sentence that
                training used for the label ("This is an image containing a benign lesion.").
            seeds: B integers from 0 to 2^63 - 1; None is 0, 1, 2, ... An image's noise comes from
                its seed alone.

        Returns:
            uint8 (B, H, W, 3), values 0 to 255, in the order of the prompts.

        Raises:
            InputError: `prompts` is empty or a single text, or `seeds` has another length.
        """
        from dermaflux.captions.text import prompt_bank

        if isinstance(prompts, str) or len(prompts) == 0:
            raise InputError(
                f"prompts is {prompts!r}; give a list of at least one text, such as ['benign']"
            )
        numbers = list(range(len(prompts)) if seeds is None else seeds)
        if len(numbers) != len(prompts):
            raise InputError(
                f"there are {len(prompts)} prompts but {len(numbers)} seeds; give one seed per "
                "prompt, or none"
            )
        sentences = prompt_bank.label_only().prompts
        texts = [sentences[text][0].text if text in sentences else text for text in prompts]
        return self._sample(texts, numbers)


def open_generator(
    folder: str | Path = paths.GENERATOR,
    backbone: str | Path = paths.BACKBONE,
    **settings: object,
) -> ImageSampler:
    """A fine-tuned generator, loaded onto the GPU if there is one.

    Args:
        folder: what `finetune` wrote.
        backbone: what `backbone` wrote.
        settings: parameters of `synthesize` that replace those of params.yaml, such as `steps=8`,
            `guidance=3.5` or `scale=256`.

    Raises:
        InputError: a folder is missing, the generator belongs to another backbone, or a setting is
            unknown or out of range.
    """
    raw = load().model_dump(by_alias=True)
    section = raw["synthesize"]
    for name, value in settings.items():
        # A setting of the generator alone is in the subsection of its name.
        (section if name in section else section[raw["generator"]])[name] = value
    params = parse(raw, "open_generator")
    return ImageSampler(_sampler(params, Path(folder), Path(backbone)))


def _sampler(
    params: Params, folder: Path, backbone: Path
) -> Callable[[Sequence[str], Sequence[int]], Pixels]:
    import numpy as np

    from dermaflux.captions.text import prompt_bank
    from dermaflux.generators import registry
    from dermaflux.generators.protocol import Collection, Condition, Models

    name, section = params.generator, params.synthesize
    generator = registry.generator(name)
    if isinstance(generator, Collection):
        raise InputError(
            f"generator {name!r} takes images that others made and samples none; open them with "
            "open_corpus('synthetic')"
        )
    sampler = generator.open(Models(folder, backbone), section.settings(name).model_dump())
    labels = {texts[0].text: label for label, texts in prompt_bank.label_only().prompts.items()}

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> Pixels:
        unknown = [prompt for prompt in prompts if prompt not in labels]
        if unknown and "captions" not in generator.needs:
            raise InputError(
                f"generator {name!r} is conditioned on the label but a prompt is {unknown[0]!r}; "
                f"give {' or '.join(labels.values())}"
            )
        conditions = [
            Condition(labels.get(prompt, ""), prompt, section.scale, seed)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        groups = sampler.groups(conditions)
        images = np.empty((len(conditions), section.scale, section.scale, 3), np.uint8)
        for group in sorted(set(groups)):
            members = [index for index, other in enumerate(groups) if other == group]
            images[members] = sampler([conditions[index] for index in members])
        return images

    return sample


def predict(images: ImageLike | Sequence[ImageLike]) -> pd.DataFrame:
    """Probability of malignancy by the champion of the MLflow registry. Not a medical device.

    Args:
        images: one or several of: a path, the bytes of an image file, a PIL image, or uint8
            (H, W, 3); or a batch, uint8 (B, H, W, 3). Images of any size are scaled and cropped to
            what the classifier takes.

    Returns:
        One row per image: `probability` in [0, 1], calibrated on validation images; `label`,
        `benign` or `malignant`; `out_of_distribution`, whether the image looks unlike the skin
        lesions of training; `problem`, one sentence where the bytes are not an image, with nulls
        in the other columns.

    Raises:
        InputError: the registry has no champion, or a path is not a file.
    """
    import numpy as np
    from PIL import Image

    from dermaflux.registry import registry, serving
    from dermaflux.tracking import runs, store

    if isinstance(images, str | Path | bytes | Image.Image | np.ndarray):
        images = list(images) if isinstance(images, np.ndarray) and images.ndim == 4 else [images]
    encoded = [_encoded(image) for image in images]
    with store.answering():
        champion = registry.require_champion(runs.connect(), load().promote.model_name)
        classifier = champion.load()
    return serving.as_frame(classifier.predict_images(encoded))


def _encoded(image: object) -> bytes:
    import numpy as np
    from PIL import Image

    from dermaflux.core.images import ImageError, decoding, encode_png, upright_rgb

    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        if not Path(image).is_file():
            name = one_line(image, 300)
            raise InputError(f"{name} is not a file; give the path of a JPEG or PNG image")
        return Path(image).read_bytes()
    if isinstance(image, Image.Image):
        try:
            with decoding():
                return encode_png(np.asarray(upright_rgb(image)))
        except ImageError as error:
            raise InputError(f"an image cannot be used: {error.reason}") from None
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"an image is a {type(image).__name__}; give a path, bytes, a PIL image or an array"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"an image is {image.dtype} of shape {image.shape}; give uint8 of shape (H, W, 3)"
        )
    return encode_png(image)


def read_results(seed_means: bool = False) -> pd.DataFrame:
    """Test figures of the evaluated classifiers, with their intervals.

    Args:
        seed_means: one row per mean over the seeds, whose interval covers seeds and test images,
            instead of one row per seed, whose interval covers test images. It needs `corpus` and
            takes some seconds: every figure is resampled again.

    Returns:
        Columns `architecture`, `seed` (without `seed_means`), `arm`, `metric`, `value`, and the
        limits `low` and `high` at the parameter `evaluate.confidence`, NaN where a figure has no
        interval. Metrics include `auc`, `accuracy`, `sensitivity`, `specificity` and `f1`, all in
        [0, 1]; docs/classifiers.md says what each interval rests on.

    Raises:
        InputError: a cell of params.yaml was not evaluated.
    """
    import pandas as pd

    from dermaflux.statistics import evaluations
    from dermaflux.statistics import seed_means as statistics

    params = load()
    cells = evaluations.load(params)
    rows: list[dict[str, object]] = []
    if seed_means:
        for (architecture, arm), means in statistics.means(params, cells).items():
            for metric, mean in means.items():
                estimate = mean.estimate(params.evaluate.confidence)
                rows.append(
                    {"architecture": architecture, "arm": arm, "metric": metric}
                    | {"value": estimate.value, "low": estimate.low, "high": estimate.high}
                )
        return pd.DataFrame(rows)
    for cell in cells:
        for arm, figures in cell.arms.items():
            for metric in figures:
                if f"{metric}_low" not in figures:
                    continue
                estimate = cell.estimate(arm, metric)
                rows.append(
                    {"architecture": cell.architecture, "seed": cell.seed, "arm": arm}
                    | {"metric": metric, "value": estimate.value}
                    | {"low": estimate.low, "high": estimate.high}
                )
    return pd.DataFrame(rows)
