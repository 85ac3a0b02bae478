"""Stage `ingest`: published downloads -> one audited image table.

Reads the data folder (parameter `data`). Writes corpus/ (Parquet shards, see `table`),
reports/quarantine.csv (every image and CSV row left out, with its reason), reports/leaks.csv (what
is linked to a test image, and how) and reports/ingest.json (counts; in = kept + quarantined;
and what source and scale alone tell of the class).
Command: ``dermaflux ingest``. Neither the number of workers nor the order of the files on
disk changes a byte of the output.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.file_names import without_suffix
from dermaflux.core.files import read_json, reading, write_json, write_text
from dermaflux.corpus import ingest_report, require, shortcuts
from dermaflux.corpus.decoding.decode import Rule, Task
from dermaflux.corpus.decoding.decode_cache import DecodeCache, open_cache
from dermaflux.corpus.decoding.map_batches import map_batches
from dermaflux.corpus.duplicates import search
from dermaflux.corpus.screening import screen
from dermaflux.corpus.shared_folders import once
from dermaflux.corpus.splitting import policies
from dermaflux.corpus.splitting.records import DecodedItem, Item, Rejection
from dermaflux.corpus.splitting.selection import Selection, select
from dermaflux.errors import InputError, quoted
from dermaflux.sources import paper_counts
from dermaflux.sources.adapter import Facts, Problem, Record
from dermaflux.sources.discovery import Dataset, discover
from dermaflux.sources.reading.files import walk_images
from dermaflux.sources.reading.unmatched import (
    passed_over_sentence,
    rewritten_example,
    unmatched_example,
)
from dermaflux.sources.registry import SOURCES

if TYPE_CHECKING:
    from dermaflux.core.arrays import Array
    from dermaflux.params import Ingest, Params


def run(params: Params) -> None:
    """Run the stage; raise `InputError` when the data cannot make a corpus.

    The two tables of losses are written, and the counts of each dataset printed, in both cases.
    """
    data, settings = Path(params.data), params.ingest
    datasets, unread = discover(data, settings.sources, settings.own)
    for part in unread:
        print(f"unread: {quoted(str(data / part.name))} ({part.images} images): {part.reason}")
    passed_over: Counter[str] = Counter()
    items = sorted(
        once(item for dataset in datasets for item in read(dataset, data, passed_over)),
        key=lambda item: (item.image_id, item.location),
    )
    for line in ingest_report.unread_lines(items) + ingest_report.test_folder_lines(items):
        print(line)
    _print_names(items, passed_over)
    usable, rejections = screen(items, settings.licences)
    leaks: list[dict[str, str]] = []
    try:
        require.before_decoding(usable, rejections, settings)
        tasks = [_task(item, settings) for item in usable]
        with open_cache(tasks, partial(map_batches, executor=params.runtime.executor)) as cache:
            decoded = _decoded(usable, cache, rejections)
            selections = _selections(decoded, cache, datasets, params)
            chosen = selections[settings.policy]
            leaks += chosen.leaks
            rejections += [
                Rejection(decoded[index].item, stage, problem, chosen.scales[index])
                for index, (stage, problem) in chosen.lost.items()
            ]
            require.before_writing(chosen, rejections, settings)
            rows = _rows(decoded, chosen, cache)
            table.write(rows, paths.CORPUS, megabytes=settings.shard_megabytes)
    except InputError:
        _write_losses(items, rejections, leaks, datasets, "usable")
        raise
    report = ingest_report.summary(items, decoded, chosen, rejections, datasets)
    report["policy"] = settings.policy
    report["policies"] = {name: selection.counts() for name, selection in selections.items()}
    report["test_drawn"] = ingest_report.test_drawn(
        decoded, chosen, settings.test_fraction, params.seed, settings.test_by
    )
    report["paper"] = {
        "training": {str(scale): count for scale, count in paper_counts.PAPER.items()},
        "residue": {str(scale): count for scale, count in paper_counts.RESIDUE.items()},
        "datasets": paper_counts.datasets(SOURCES.values()),
    }
    report["unread"] = {part.name: {"images": part.images, "why": part.reason} for part in unread}
    report["bayes_auc"] = _bayes_auc(data)
    report["shortcuts"] = shortcuts.aucs(report["kept"].get("train", {}))
    _write_losses(items, rejections, leaks, datasets, "kept")
    write_json(paths.INGEST_REPORT, report)
    lines = [*ingest_report.outcome(report), *shortcuts.lines(report["shortcuts"])]
    print("\n".join(lines), flush=True)


def _write_losses(
    items: Sequence[Item],
    rejections: Sequence[Rejection],
    leaks: Sequence[dict[str, str]],
    datasets: Sequence[Dataset],
    rest: Literal["kept", "usable"],
) -> None:
    """Write what is left out and why, and print it in a line for each dataset."""
    write_text(paths.QUARANTINE, ingest_report.quarantine_csv(rejections))
    write_text(paths.LEAKS, ingest_report.leaks_csv(leaks))
    print("\n".join(ingest_report.per_dataset(items, rejections, datasets, rest)), flush=True)


def _decoded(
    usable: Sequence[Item], cache: DecodeCache, rejections: list[Rejection]
) -> list[DecodedItem]:
    """Items whose image decoded; the others join `rejections`."""
    decoded: list[DecodedItem] = []
    for item, entry in zip(usable, cache.entries, strict=True):
        if isinstance(entry, Problem):
            rejections.append(Rejection(item, "decode", entry))
        else:
            decoded.append(DecodedItem(item, entry))
    return decoded


def _selections(
    decoded: Sequence[DecodedItem],
    cache: DecodeCache,
    datasets: Sequence[Dataset],
    params: Params,
) -> dict[policies.Name, Selection]:
    """What each policy makes of the images."""
    settings = params.ingest
    published = published_pairs(decoded, datasets)
    edges = same_photographs(decoded, cache, published, settings.duplicate_correlation)
    return {
        name: select(
            decoded,
            edges,
            published,
            policies.policy(name, settings),
            settings.validation_fraction,
            params.seed,
            settings.test_fraction,
        )
        for name in policies.NAMES
    }


def _bayes_auc(data: Path) -> float | None:
    """The AUC that no classifier can exceed; known for the phantom corpus only."""
    phantom = data / "phantom.json"
    if not phantom.is_file():
        return None
    with reading(phantom, "`dermaflux phantom`"):
        return float(read_json(phantom, "`dermaflux phantom`", "bayes_auc")["bayes_auc"])


def _print_names(items: Sequence[Item], passed_over: Counter[str]) -> None:
    """Names that do not match or match loosely, with an example of each side, per dataset."""
    by_source: dict[str, list[Record]] = {}
    for item in items:
        by_source.setdefault(item.dataset.source.name, []).append(item.record)
    for source, records in by_source.items():
        for sentence in (unmatched_example(records), rewritten_example(records)):
            if sentence:
                print(f"{source}: {sentence}")
    if sentence := passed_over_sentence(passed_over):
        print(sentence)


def read(dataset: Dataset, data: Path, passed_over: Counter[str] | None = None) -> Iterator[Item]:
    """Every record of a dataset, and every image file in its folders that no record names."""
    claimed = set()
    for record in dataset.source.read(dataset.root):
        if record.path is not None:
            claimed.add(record.path)
            location = record.path.relative_to(data).as_posix()
            location += f":{record.member}" if record.member else ""
        else:
            location = (dataset.root.relative_to(data) / (record.row or "")).as_posix()
        yield Item(dataset, record, location)
    problem = Problem("outside-layout", "the published layout has no labelled image in this place")
    for folder in dataset.folders:
        for path in walk_images(folder, passed_over) if folder.is_dir() else ():
            if path not in claimed:
                name = without_suffix(path.relative_to(dataset.root).as_posix())
                record = Record(name, path, None, "train", Facts(problem=problem))
                yield Item(dataset, record, path.relative_to(data).as_posix())


def _task(item: Item, settings: Ingest) -> Task:
    published = settings.policy == "as_published"
    scale = item.dataset.source.published_scale if published else None
    # Worker processes keep the working directory of the moment they were started in.
    path = os.path.abspath(str(item.record.path))
    return path, item.record.member, _rule(scale, settings.jpeg_quality)


_rule = cache(Rule)  # one object, not one per image


def same_photographs(
    decoded: Sequence[DecodedItem], cache: DecodeCache, published: Array, correlation: float
) -> Array:
    """Pairs int (P, 2) with equal bytes, with correlated fine detail, or `published` as copies."""
    import numpy as np

    from dermaflux.progress import progress

    pairs = search.equal_pairs([entry.image.sha256 for entry in decoded])
    edges = [published, np.array(pairs, dtype=np.int64).reshape(-1, 2)]

    def thumbnails(indices: Array) -> Array:
        return cache.thumbnails([decoded[index].image for index in indices])

    with progress("duplicates", len(decoded)) as advance:
        for block in search.copies(len(decoded), thumbnails):
            edges.append(block.pairs(correlation))
            advance(block.images)
    return np.concatenate(edges)


def published_pairs(decoded: Sequence[DecodedItem], datasets: Sequence[Dataset]) -> Array:
    """Pairs int (P, 2) of images that a dataset's own list calls duplicates."""
    import numpy as np

    index = {entry.item.image_id: i for i, entry in enumerate(decoded)}
    pairs = []
    for dataset in datasets:
        for names in dataset.source.pairs(dataset.root):
            first, second = (index.get(f"{dataset.source.name}/{name}") for name in names)
            if first is not None and second is not None:
                pairs.append((first, second))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _rows(
    decoded: Sequence[DecodedItem], chosen: Selection, cache: DecodeCache
) -> Iterator[dict[str, Any]]:
    """Corpus rows in output order, one at a time."""

    def order(index: int) -> tuple[int, str]:
        return table.SPLITS.index(chosen.splits[index] or ""), decoded[index].item.image_id

    for index in sorted(chosen.kept(), key=order):
        item, image = decoded[index].item, decoded[index].image
        source, facts = item.dataset.source, item.record.facts
        tone = facts.skin_tone or image.skin_tone
        yield {
            "image": {"bytes": cache.encoded(image), "path": f"{item.image_id}.jpg"},
            "image_id": item.image_id,
            "source": source.name,
            "licence": item.licence,
            "modality": facts.modality or source.modality,
            "label": chosen.labels[index],
            "diagnosis": facts.diagnosis,
            "patient_id": facts.patient_id,
            "lesion_id": facts.lesion_id,
            "skin_tone": tone,
            "skin_tone_origin": "published" if facts.skin_tone else "measured" if tone else None,
            "width": image.width,
            "height": image.height,
            "scale": chosen.scales[index],
            "split": chosen.splits[index],
            "sha256": image.sha256,
            "phash": f"{image.phash:016x}",
            "duplicate_group": chosen.groups[index],
        }
