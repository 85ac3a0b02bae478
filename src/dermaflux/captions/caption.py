"""Stage `caption`: one caption per image of the corpus, by the chosen captioner.

Reads corpus/, writes captions/captions-00000-of-00001.parquet. Run with `dermaflux caption`. Work
goes in shards of `caption.shard_images`; a killed run continues with the first one that is missing.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dermaflux import paths
from dermaflux.captions.rows import SCHEMA, Row, rows_of
from dermaflux.captions.text import summary
from dermaflux.core import table
from dermaflux.core.checkpoints import checkpoint, fingerprint
from dermaflux.core.files import atomic_folder
from dermaflux.params import Caption, Params
from dermaflux.progress import progress

if TYPE_CHECKING:
    import pandas as pd

    from dermaflux.captions.vlm.answer_cache import Paid

_SPEED_ONLY = {
    *("endpoint", "api_key_variable", "concurrency", "timeout_seconds", "retries"),
    *("token_budget", "price_per_million_tokens"),
}
"""Parameters that decide no caption, so that a killed run may continue with others."""

Advance = Callable[..., None]


def run(params: Params) -> None:
    """Caption the corpus; raises `InputError` when the model cannot be asked."""
    section = params.caption
    known = table.metadata(paths.CORPUS, ["image_id", "label", "modality", "sha256"])
    size = section.shard_images
    count = -(-len(known) // size)
    with checkpoint("caption", _fingerprint(section, known)) as saved:
        files = [saved.file(f"{number:06d}.parquet") for number in range(count)]
        _write_shards(section, known, files)
        with atomic_folder(paths.CAPTIONS) as partial:
            writer = table.ShardWriter(partial, "captions", 64, SCHEMA)
            for file in files:
                for row in pq.read_table(file).to_pylist():
                    writer.add(row)
            writer.close()
            found = summary.write(partial)
        _summarise(found, files)
        saved.discard()


def _summarise(found: dict[str, Any], files: Sequence[Path]) -> None:
    tokens = 0
    for file in files:
        spent = pq.read_table(file, columns=["prompt_tokens", "completion_tokens"])
        tokens += sum(sum(filter(None, column.to_pylist())) for column in spent.columns)
    named = ", ".join(f"{name} {number:,}" for name, number in found["faults"].items() if number)
    print(
        f"captions: {found['captions']:,}, held out {found['held_out']:,}, flagged "
        f"{found['flagged']:,}{f' ({named})' if named else ''}, tokens {tokens:,}"
    )


def _fingerprint(section: Caption, known: pd.DataFrame) -> str:
    """Of the images, of the parameters that decide captions, and of the code that writes them."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for row in known.itertuples(index=False):
        digest.update("\0".join(map(str, row)).encode())
    for file in _files(section.imported):
        digest.update(file.read_bytes())
    settings = section.model_dump(exclude=_SPEED_ONLY)
    return fingerprint(inputs=digest.hexdigest(), settings=settings)


def _files(imported: str | None) -> list[Path]:
    if imported is None:
        return []
    path = Path(imported)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in files if file.is_file()]


def _write_shards(section: Caption, known: pd.DataFrame, files: Sequence[Path]) -> None:
    """Make every shard of `files` that does not exist yet; each appears whole."""
    missing = [number for number, file in enumerate(files) if not file.exists()]
    if not missing:
        return
    size = section.shard_images
    wanted = [
        image_id
        for number in missing
        for image_id in known["image_id"][number * size : (number + 1) * size]
    ]
    ready = len(known) - len(wanted)
    texts = _imported(section, known)
    with (
        _asked(section) as asked,
        progress("caption", len(known), ready) as advance,
    ):
        vision, paid = asked or (None, None)
        pictures = _pictures(section, wanted)
        began, done = time.monotonic(), 0
        for number in missing:
            part = known[number * size : (number + 1) * size]
            images = list(itertools.islice(pictures, len(part)))
            rows = rows_of(section, part, images, vision, texts, _Counting(advance, paid))
            _write_whole(rows, files[number])
            done += len(part)
            if paid is not None:
                _say(ready + done, len(known), done / (time.monotonic() - began), paid.tokens)


def _asked(section: Caption) -> Any:
    """The model behind the captioner; nothing for captioners without one."""
    if section.captioner not in ("llama", "visual_attributes"):
        return nullcontext()
    from dermaflux.captions.vlm import open

    return open.opened(section, _large_image(paths.CORPUS))


def _large_image(corpus: Path) -> bytes:
    """The largest image of the row group with the most bytes; reads that group only."""
    groups = [
        (file.metadata.row_group(group).total_byte_size, path, group)
        for path in table.shards(corpus)
        for file in [pq.ParquetFile(path)]
        for group in range(file.num_row_groups)
    ]
    _, path, group = max(groups)
    pictures = pq.ParquetFile(path).read_row_group(group, columns=["image"])["image"].to_pylist()
    return max((bytes(picture["bytes"]) for picture in pictures), key=len)


def _imported(section: Caption, known: pd.DataFrame) -> dict[str, str]:
    """Captions by image_id; what does not match is printed."""
    if section.captioner != "imported":
        return {}
    from dermaflux.captions import imported

    assert section.imported is not None  # checked by the schema
    found = imported.read(Path(section.imported), known["image_id"])
    print(found.summary())
    return found.captions


def _pictures(section: Caption, wanted: Sequence[str]) -> Iterator[bytes | None]:
    """Encoded images in corpus order; the captioner `label` looks at none."""
    if section.captioner == "label":
        return itertools.repeat(None)
    return (encoded for _, encoded in table.images(paths.CORPUS, wanted))


class _Counting:
    """`advance` that shows the tokens paid so far."""

    def __init__(self, advance: Advance, paid: Paid | None) -> None:
        self._advance, self._paid = advance, paid

    def __call__(self, images: int) -> None:
        message = f"{self._paid.tokens:,} tokens" if self._paid else ""
        self._advance(images, message)


def _say(done: int, total: int, rate: float, tokens: int) -> None:
    """A line for logs, where no progress bar is shown."""
    left = (total - done) / rate
    hours, minutes = int(left // 3600), int(left % 3600 // 60)
    print(
        f"caption: {done:,} of {total:,} images, {rate:,.1f}/s, {hours} h {minutes:02d} min left, "
        f"{tokens:,} tokens paid",
        flush=True,
    )


def _write_whole(rows: Sequence[Row], file: Path) -> None:
    partial = file.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), partial)
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.rename(file)
