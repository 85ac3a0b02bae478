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


def collect(section: Synthesize, folder: Path, output: Path, report: Path) -> None:
    """Write `section.images` of the folder's images, half of each class, as the one table.

    Which ones is decided by the hash of their bytes, not by name or order. Raises `InputError` when
    a class has too few.
    """
    images, refused, count = files.listing(folder)
    name = folder.resolve().name if folder.is_dir() else folder.stem
    constants = {
        "source": "synthetic", "split": "train", "modality": "synthetic",
        "licence": f"see {name}", "generator": "released", "weights": files.digest(images),
        "scale": section.scale, "sampler_settings": table.settings_json({"folder": name}),
    }  # fmt: skip
    chosen = _chosen(images, section, folder, refused)
    shard_count = -(-section.images // section.shard_images)
    with atomic_folder(output) as partial:
        for number in range(shard_count):
            rows = [
                _row(image, fitted, constants)
                for image, fitted in islice(chosen, section.shard_images)
            ]
            table.write_shard(rows, partial / table.shard_name("train", number, shard_count))
    spare = count - section.images - len(refused)
    pool_report.write(output, report, refused, {"found": count, "not_needed": spare})
    print(
        f"synthesize: {section.images:,} of {count:,} images of {folder}, {len(refused):,} left "
        f"out with a reason, {spare:,} not needed"
    )


def _chosen(
    images: Sequence[ReleasedImage], section: Synthesize, folder: Path, refused: list[Refused]
) -> Iterator[tuple[ReleasedImage, PoolImage]]:
    """`section.images` images in the order of their files; unusable ones go to `refused`.

    The first of each class by hash are read, then as many more as there were unusable ones.
    """
    queues = {
        label: sorted((i for i in images if i.label == label), key=lambda image: image.sha256)
        for label in CLASSES
    }
    missing = dict.fromkeys(CLASSES, section.images // 2)
    with progress("synthesize", section.images) as advance:
        while any(missing.values()):
            batch = {i.name: i for label in CLASSES for i in queues[label][: missing[label]]}
            for label in CLASSES:
                if len(queues[label]) < missing[label]:
                    lacking = missing[label] - len(queues[label])
                    raise _too_few(section, folder, label, lacking, refused)
                del queues[label][: missing[label]]
            for name, fitted in _fitted(folder, set(batch), section.scale):
                if isinstance(fitted, Refused):
                    refused.append(fitted)
                    continue
                missing[batch[name].label] -= 1
                advance(1)
                yield batch[name], fitted


def _too_few(
    section: Synthesize, folder: Path, label: str, missing: int, refused: Sequence[Refused]
) -> InputError:
    wanted = section.images // 2
    sentence = (
        f"synthesize.images {section.images} needs {wanted} {label} images of at least "
        f"{section.scale} pixels but {quoted(str(folder))} has {wanted - missing}; lower "
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


def _row(image: ReleasedImage, fitted: PoolImage, constants: dict[str, Any]) -> dict[str, Any]:
    image_id = f"synthetic/{image.name}"
    return constants | {
        "image": {"bytes": fitted.encoded, "path": image_id},
        "image_id": image_id,
        "label": image.label,
        "width": fitted.width,
        "height": fitted.height,
        "sha256": sha256(fitted.encoded),
    }
