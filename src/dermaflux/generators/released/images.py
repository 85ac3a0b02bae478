"""Stage `synthesize` with `generator: folder`: released images in place of sampled ones.

The authors' 40,000 (StathisGln/DermaFlux_synthetic_dataset), Derm-T2IM's 6,000 or any others.
Reads `synthesize.folder`; writes synthetic/ and reports/synthesize/. Pixels stay what was published
where they have the size wanted; larger images are cropped and reduced and kept as PNG, smaller ones
are not enlarged but left out.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import atomic_folder
from dermaflux.core.hashing import sha256
from dermaflux.core.images import ImageError, square, upright
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.generators.pool import report as pool_report
from dermaflux.generators.pool.report import Refused
from dermaflux.generators.released import files
from dermaflux.generators.released.files import Found
from dermaflux.params import Params, Synthesize
from dermaflux.progress import progress
from dermaflux.sources.adapter import Problem
from dermaflux.tracking import runs

_DECODED_TOGETHER = 64


@dataclass(frozen=True)
class Fitted:
    """A picture as square as the pool wants it."""

    encoded: bytes
    """JPEG or PNG."""
    width: int
    height: int
    """Size in pixels as published."""


def run(params: Params) -> None:
    """Write synthetic/ from the folder, as an MLflow run."""
    section = params.synthesize
    parameters = {"seed": params.seed, **section.model_dump()}
    with runs.start("generator", "synthesize", parameters, inputs=[]) as log:
        take(section, Path(str(section.folder)), paths.SYNTHETIC, paths.SYNTHESIZE_REPORT)
        log.outputs(paths.SYNTHETIC)


def take(section: Synthesize, folder: Path, output: Path, report: Path) -> None:
    """Write `section.images` of the folder's images, half of each class, as the one table.

    Which ones is decided by the hash of their bytes, not by name or order. Raises `InputError` when
    a class has too few.
    """
    found, refused, count = files.listing(folder)
    name = folder.resolve().name if folder.is_dir() else folder.stem
    constants = {
        "source": "synthetic", "split": "train", "modality": "synthetic",
        "licence": f"see {name}", "generator": name, "weights": _digest(found),
        "scale": section.scale,
    }  # fmt: skip
    pictures = _pictures(found, section, folder, refused)
    count_of_shards = -(-section.images // section.shard_images)
    with atomic_folder(output) as partial:
        for number in range(count_of_shards):
            rows = [
                _row(one, fitted, constants)
                for one, fitted in islice(pictures, section.shard_images)
            ]
            table.write_shard(rows, partial / table.shard_name("train", number, count_of_shards))
        _cross_border(section, partial)
    spare = count - section.images - len(refused)
    pool_report.write(output, report, refused, {"found": count, "not_needed": spare})
    print(
        f"synthesize: {section.images:,} of {count:,} images of {folder}, {len(refused):,} left "
        f"out with a reason, {spare:,} not needed"
    )


def _cross_border(section: Synthesize, folder: Path) -> None:
    """Check the written shards with the suite `synthetic`."""
    from dermaflux.validation import pool_suite

    pool_suite.check(table.metadata(folder), section.images, section.scale, None)


def _digest(found: Sequence[Found]) -> str:
    """Hash of the list of files, which stands for the weights they were made with."""
    lines = sorted(f"{one.sha256} {one.name}" for one in found)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _pictures(
    found: Sequence[Found], section: Synthesize, folder: Path, refused: list[Refused]
) -> Iterator[tuple[Found, Fitted]]:
    """`section.images` pictures in the order of their files; what cannot be used goes to `refused`.

    The first of each class by hash are read, then as many more as there were unusable ones.
    """
    queues = {
        label: sorted((one for one in found if one.label == label), key=lambda one: one.sha256)
        for label in CLASSES
    }
    missing = dict.fromkeys(CLASSES, section.images // 2)
    with progress("synthesize", section.images) as advance:
        while any(missing.values()):
            chosen = {one.name: one for label in CLASSES for one in queues[label][: missing[label]]}
            for label in CLASSES:
                if len(queues[label]) < missing[label]:
                    raise _too_few(section, folder, label, missing[label] - len(queues[label]))
                del queues[label][: missing[label]]
            for name, fitted in _fitted_all(folder, set(chosen), section.scale):
                if isinstance(fitted, Problem):
                    refused.append(Refused(name, fitted.rule, fitted.reason))
                    continue
                missing[chosen[name].label] -= 1
                advance(1)
                yield chosen[name], fitted


def _too_few(section: Synthesize, folder: Path, label: str, missing: int) -> InputError:
    wanted = section.images // 2
    return InputError(
        f"synthesize.images {section.images} needs {wanted} {label} images of at least "
        f"{section.scale} pixels but {folder} has {wanted - missing}; lower synthesize.images or "
        "synthesize.scale"
    )


def _fitted_all(
    folder: Path, names: set[str], scale: int
) -> Iterator[tuple[str, Fitted | Problem]]:
    """(name, picture) of the named images in the order of their files, decoded on all cores."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    stream = files.contents(folder, names)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(stream, _DECODED_TOGETHER)):
            made = pool.map(lambda item: _fitted(item[2], scale), chunk)
            yield from zip((name for name, _, _ in chunk), made, strict=True)


def _row(one: Found, fitted: Fitted, constants: dict[str, Any]) -> dict[str, Any]:
    image_id = f"synthetic/{one.name}"
    return constants | {
        "image": {"bytes": fitted.encoded, "path": image_id},
        "image_id": image_id,
        "label": one.label,
        "width": fitted.width,
        "height": fitted.height,
        "sha256": sha256(fitted.encoded),
    }


def _fitted(content: bytes, scale: int) -> Fitted | Problem:
    try:
        found = upright(content)
    except ImageError as error:
        return Problem(error.rule, error.reason)
    width, height = found.image.size
    if min(width, height) < scale:
        return Problem(
            "small", f"{width} x {height} is below synthesize.scale {scale}; lower the scale"
        )
    if found.as_stored and (width, height) == (scale, scale):
        return Fitted(content, width, height)
    buffer = io.BytesIO()
    square(found.image, scale).save(buffer, "PNG")
    return Fitted(buffer.getvalue(), width, height)
