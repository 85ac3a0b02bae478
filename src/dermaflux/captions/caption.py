"""Stage `caption`: one caption per image of the corpus, by the chosen captioner.

Reads corpus/, writes captions/captions-00000-of-00001.parquet. Run with `dermaflux caption`. Work
is saved in shards of `runtime.caption.shard_images`; a killed run continues with the first missing
one.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from dermaflux import paths
from dermaflux.captions.rows import SCHEMA, Row, caption_rows
from dermaflux.captions.text import summary
from dermaflux.captions.vlm import questions
from dermaflux.core import table
from dermaflux.core.checkpoints import checkpoint, fingerprint
from dermaflux.core.code_digest import stage_digest
from dermaflux.core.files import atomic_folder
from dermaflux.params import VISION_LANGUAGE, Caption, Params
from dermaflux.params.runtime import CaptionRuntime
from dermaflux.progress import progress

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.captions.vlm.answer_cache import AnswerCache, CachedVLM

Advance = Callable[..., None]


def run(params: Params) -> None:
    """Caption the corpus; raises `InputError` when the model cannot be reached or used."""
    section, runtime = params.caption, params.runtime.caption
    images = table.metadata(paths.CORPUS, ["image_id", "label", "modality", "sha256"])
    count = -(-len(images) // runtime.shard_images)
    key = _fingerprint(section, runtime.shard_images, images)
    with checkpoint("caption", key, output=paths.CAPTIONS) as saved:
        shards = [saved.file(f"{index:06d}.parquet") for index in range(count)]
        _write_missing(section, runtime, images, shards)
        with atomic_folder(paths.CAPTIONS) as partial:
            writer = table.ShardWriter(partial, "captions", 64, SCHEMA)
            for shard in shards:
                for row in pq.read_table(shard).to_pylist():
                    writer.add(row)
            writer.close()
            figures = summary.write(partial)
        _print_summary(section.captioner, figures, shards)
        saved.discard()


def _print_summary(captioner: str, figures: dict[str, Any], shards: Sequence[Path]) -> None:
    tokens = 0
    for shard in shards:
        counts = pq.read_table(shard, columns=["prompt_tokens", "completion_tokens"])
        tokens += sum(sum(filter(None, column.to_pylist())) for column in counts.columns)
    faults = ", ".join(f"{name} {count:,}" for name, count in figures["faults"].items() if count)
    print(
        f"caption: {figures['captions']:,} captions by {captioner}, {figures['flagged']:,} flagged "
        f"by the quality gate{f' ({faults})' if faults else ''}, {figures['held_out']:,} held out, "
        f"{tokens:,} tokens, in {paths.CAPTIONS}"
    )


def _fingerprint(section: Caption, shard_images: int, images: pd.DataFrame) -> str:
    """Of the images, the parameters and the code that decide captions, and the shard size."""
    digest = hashlib.sha256()
    for row in images.itertuples(index=False):
        digest.update("\0".join(map(str, row)).encode())
    for file in _texts_from_outside(section):
        digest.update(file.read_bytes())
    return fingerprint(
        inputs=digest.hexdigest(),
        settings=section.model_dump(),
        shard_images=shard_images,
        code=stage_digest("caption"),
    )


def _texts_from_outside(section: Caption) -> list[Path]:
    """Files whose content decides captions; raises `InputError` for one that cannot."""
    if section.captioner == "visual_attributes":
        questions.read(Path(section.questions))
        return [Path(section.questions)]
    if section.captioner != "imported" or section.imported is None:
        return []
    from dermaflux.captions.imported.files import caption_files

    return caption_files(Path(section.imported))


def _write_missing(
    section: Caption, runtime: CaptionRuntime, images: pd.DataFrame, shards: Sequence[Path]
) -> None:
    """Write every shard that does not exist yet; each appears whole."""
    missing = [index for index, shard in enumerate(shards) if not table.is_whole(shard)]
    if not missing:
        return
    size = runtime.shard_images
    parts = {index: images[index * size : (index + 1) * size] for index in missing}
    remaining = [image_id for part in parts.values() for image_id in part["image_id"]]
    ready = len(images) - len(remaining)
    imported_texts = _imported_texts(section, images)
    with (
        _open_vlm(section, runtime) as opened,
        progress("caption", len(images), ready) as advance,
    ):
        vlm, cache = opened or (None, None)
        encoded = _encoded_images(section, remaining)
        start, done = time.monotonic(), 0
        for index, part in parts.items():
            batch = list(itertools.islice(encoded, len(part)))
            advance_part = _with_tokens(advance, cache)
            rows = caption_rows(section, part, batch, vlm, imported_texts, advance_part)
            _write_shard(rows, shards[index])
            done += len(part)
            if cache is not None:
                rate = done / (time.monotonic() - start)
                _print_progress(ready + done, len(images), rate, cache.tokens)


def _open_vlm(
    section: Caption, runtime: CaptionRuntime
) -> AbstractContextManager[tuple[CachedVLM, AnswerCache] | None]:
    """The model behind the captioner; None for captioners without one."""
    if section.captioner not in VISION_LANGUAGE:
        return nullcontext()
    from dermaflux.captions.vlm.open import open_vlm

    return open_vlm(section, runtime, _large_image(paths.CORPUS))


def _large_image(corpus: Path) -> bytes:
    """The largest image of the row group with the most bytes; reads that group only."""
    groups = [
        (file.metadata.row_group(group).total_byte_size, path, group)
        for path in table.shards(corpus)
        for file in [pq.ParquetFile(path)]
        for group in range(file.num_row_groups)
    ]
    _, path, group = max(groups)
    images = pq.ParquetFile(path).read_row_group(group, columns=["image"])["image"].to_pylist()
    return max((bytes(image["bytes"]) for image in images), key=len)


def _imported_texts(section: Caption, images: pd.DataFrame) -> dict[str, str]:
    """Imported captions by image_id; prints what does not match."""
    if section.captioner != "imported":
        return {}
    from dermaflux.captions.imported.match import read

    assert section.imported is not None  # checked by the schema
    match = read(Path(section.imported), images["image_id"])
    for line in (*match.notes, match.summary()):
        print(f"caption: {line}")
    return match.captions


def _encoded_images(section: Caption, image_ids: Sequence[str]) -> Iterator[bytes | None]:
    """Encoded images in corpus order; the captioner `label` needs none."""
    if section.captioner == "label":
        return itertools.repeat(None)
    return (encoded for _, encoded in table.images(paths.CORPUS, image_ids))


def _with_tokens(advance: Advance, cache: AnswerCache | None) -> Advance:
    """`advance` that shows the tokens paid so far."""
    return lambda images: advance(images, f"{cache.tokens:,} tokens" if cache else "")


def _print_progress(done: int, total: int, rate: float, tokens: int) -> None:
    """A line for logs, where no progress bar is shown."""
    left = (total - done) / rate
    hours, minutes = int(left // 3600), int(left % 3600 // 60)
    print(
        f"caption: {done:,} of {total:,} images, {rate:,.1f}/s, {hours} h {minutes:02d} min left, "
        f"{tokens:,} tokens paid",
        flush=True,
    )


def _write_shard(rows: Sequence[Row], shard: Path) -> None:
    table.write_shard(rows, shard, SCHEMA)
