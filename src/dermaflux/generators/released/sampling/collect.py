"""Released images in place of sampled ones: chosen by hash, fitted to the scale of the pool.

The authors' 40,000 (StathisGln/DermaFlux_synthetic_dataset), Derm-T2IM's 6,000 or any others.
Reads the folder; writes synthetic/ and reports/synthesize/. Pixels stay what was published where
they have the size wanted; larger images are cropped and reduced and stored as PNG, smaller ones are
not enlarged but left out.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dermaflux.core import table
from dermaflux.core.decode_ahead import decode_ahead
from dermaflux.core.files import atomic_folder
from dermaflux.core.hashing import sha256
from dermaflux.core.images import ImageError, square, upright
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, quoted
from dermaflux.generators.pool import report as pool_report
from dermaflux.generators.pool.report import Refused
from dermaflux.generators.protocol import Wanted
from dermaflux.generators.released.model import files
from dermaflux.generators.released.model.files import ReleasedImage
from dermaflux.params import Synthesize
from dermaflux.progress import progress

_AHEAD = 64  # decoded images waiting to be written


@dataclass(frozen=True)
class PoolImage:
    """An image as square as the pool wants it."""

    encoded: bytes
    """JPEG or PNG."""
    width: int
    height: int
    """Size in pixels as published."""


def collect(
    section: Synthesize, folder: Path, output: Path, report: Path, wanted: Wanted | None = None
) -> None:
    """Write `section.images` of the folder's images as the one table; without `wanted`, half of
    each label.

    Which ones is decided by the hash of their bytes, not by name or order. Raises `InputError` when
    a class has too few.
    """
    images, refused, count = files.listing(folder, section.column)
    wanted = wanted or Wanted(
        dict.fromkeys(CLASSES, section.images // 2), {each: frozenset({each}) for each in CLASSES}
    )
    images = _asked_for(images, section, wanted, refused)
    name = folder.resolve().name if folder.is_dir() else folder.stem
    constants = {
        "source": "synthetic", "split": "train", "modality": "synthetic",
        "licence": f"see {name}", "generator": "released", "weights": files.digest(images),
        "scale": section.scale, "sampler_settings": table.settings_json({"folder": name}),
    }  # fmt: skip
    chosen = _chosen(images, section, folder, wanted, refused)
    shard_count = -(-section.images // section.shard_images)
    with atomic_folder(output) as partial:
        for number in range(shard_count):
            rows = [
                _row(image, fitted, constants, section.column)
                for image, fitted in islice(chosen, section.shard_images)
            ]
            table.write_shard(rows, partial / table.shard_name("train", number, shard_count))
    spare = count - section.images - len(refused)
    counts = {"found": count, "not_needed": spare}
    pool_report.write(output, report, refused, counts, section.column)
    print(
        f"synthesize: {section.images:,} of {count:,} images of {folder}, {len(refused):,} left "
        f"out with a reason, {spare:,} not needed"
    )


def _asked_for(
    images: Sequence[ReleasedImage], section: Synthesize, wanted: Wanted, refused: list[Refused]
) -> list[ReleasedImage]:
    """Images of the classes that are asked for; others go to `refused` if their class is unclear.

    Of a diagnosis, those whose path also says a label that its training images have.
    """
    asked = []
    for image in images:
        name = getattr(image, section.column)
        if name not in wanted.labels:
            reason = (
                f"its folder {quoted(name or '')} is no diagnosis of a training image; put it in a "
                f"folder such as {image.label}/{min(wanted.images)}"
            )
            refused.append(Refused(image.name, "unlabelled", reason))
        elif image.label not in wanted.labels[name]:
            reason = (
                f"its path says {image.label} but all training images of {name} are "
                f"{min(wanted.labels[name])}; correct one of its folders"
            )
            refused.append(Refused(image.name, "ambiguous", reason))
        elif name in wanted.images:
            asked.append(image)
    return asked


def _chosen(
    images: Sequence[ReleasedImage],
    section: Synthesize,
    folder: Path,
    wanted: Wanted,
    refused: list[Refused],
) -> Iterator[tuple[ReleasedImage, PoolImage]]:
    """`section.images` images in the order of their files; unusable ones go to `refused`.

    The first of each class by hash are read, then as many more as there were unusable ones.
    """
    queues: dict[str, list[ReleasedImage]] = {name: [] for name in wanted.images}
    for image in sorted(images, key=lambda image: image.sha256):
        queues[getattr(image, section.column)].append(image)
    missing = dict(wanted.images)
    with progress("synthesize", section.images) as advance:
        while any(missing.values()):
            batch = {i.name: i for name in missing for i in queues[name][: missing[name]]}
            for name in missing:
                if len(queues[name]) < missing[name]:
                    lacking = missing[name] - len(queues[name])
                    raise _too_few(section, folder, name, lacking, wanted, refused)
                del queues[name][: missing[name]]
            for name, fitted in _fitted(folder, set(batch), section.scale):
                if isinstance(fitted, Refused):
                    refused.append(fitted)
                    continue
                missing[getattr(batch[name], section.column)] -= 1
                advance(1)
                yield batch[name], fitted


def _too_few(
    section: Synthesize,
    folder: Path,
    name: str,
    missing: int,
    wanted: Wanted,
    refused: Sequence[Refused],
) -> InputError:
    needed = wanted.images[name]
    sentence = (
        f"synthesize.images {section.images} needs {needed} {name} images of at least "
        f"{section.scale} pixels but {quoted(str(folder))} has {needed - missing}; lower "
        "synthesize.images or synthesize.scale"
    )
    if refused:
        rules = Counter(refusal.rule for refusal in refused).most_common()
        counts = ", ".join(f"{count:,} {rule}" for rule, count in rules)
        example = next(one for one in refused if one.rule == rules[0][0])
        sentence += f"; left out: {counts}, such as {quoted(example.file)}: {example.reason}"
    return InputError(sentence)


def _fitted(folder: Path, names: set[str], scale: int) -> Iterator[tuple[str, PoolImage | Refused]]:
    """(name, image) of the named images in the order of their files, decoded on all cores."""

    def fit_named(item: tuple[str, str, bytes | ImageError]) -> tuple[str, PoolImage | Refused]:
        name, _, content = item
        try:
            if isinstance(content, ImageError):
                raise content
            return name, fit(content, scale)
        except ImageError as error:
            return name, Refused(name, error.rule, error.reason)

    return decode_ahead(fit_named, files.contents(folder, names), _AHEAD)


def fit(content: bytes, scale: int) -> PoolImage:
    """The image in the bytes of one file at `scale`; raises `ImageError` where it is unusable."""
    decoded = upright(content)
    width, height = decoded.image.size
    if min(width, height) < scale:
        reason = f"{width} x {height} is below synthesize.scale {scale}; lower the scale"
        raise ImageError("small", reason)
    if decoded.as_stored and (width, height) == (scale, scale):
        return PoolImage(content, width, height)
    # Saved by Pillow as it is, not through an array, which would lose a colour profile.
    buffer = io.BytesIO()
    square(decoded.image, scale).save(buffer, "PNG")
    return PoolImage(buffer.getvalue(), width, height)


def _row(
    image: ReleasedImage, fitted: PoolImage, constants: dict[str, Any], column: str
) -> dict[str, Any]:
    image_id = f"synthetic/{image.name}"
    return constants | {
        "image": {"bytes": fitted.encoded, "path": image_id},
        "image_id": image_id,
        "label": image.label,
        "diagnosis": image.diagnosis if column == "diagnosis" else None,
        "width": fitted.width,
        "height": fitted.height,
        "sha256": sha256(fitted.encoded),
    }
