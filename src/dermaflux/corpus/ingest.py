"""Stage `ingest`: published downloads -> one audited image table.

Reads the data folder (parameter `data`). Writes corpus/ (Parquet shards, see `table`),
reports/quarantine.csv (every image and CSV row left out, with its reason) and reports/ingest.json
(counts; in = kept + quarantined). Command: ``dermaflux ingest``. Neither the number of workers nor
the order in which files lie on disk changes a byte of the output.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dermaflux import paths, table
from dermaflux.corpus import duplicates, ledger, splits
from dermaflux.corpus.decode import Rule
from dermaflux.corpus.ledger import Item, Kept, Rejected, Row
from dermaflux.corpus.sources.adapter import Facts, Problem, Record
from dermaflux.corpus.sources.discovery import Dataset, discover, walk_images
from dermaflux.corpus.spool import Spool, spooled
from dermaflux.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from dermaflux.params import Ingest, Params

CLASSES = ("benign", "malignant")


def run(params: Params) -> None:
    """Run the stage; raise `InputError` when the data cannot make a corpus."""
    data = Path(params.data)
    datasets, unread = discover(data, params.ingest.sources)
    for part in unread:
        print(f"unread: {data / part.name} ({part.images} images): {part.reason}")
    items = sorted(
        (item for dataset in datasets for item in read(dataset, data)),
        key=lambda item: (item.image_id, item.location),
    )
    usable, rejected = screen(items, params.ingest.indeterminate)
    tasks = [(_path(item), _rule(item, params.ingest)) for item, _ in usable]
    with spooled(tasks) as spool:
        kept: list[Kept] = []
        for (item, label), entry in zip(usable, spool.entries, strict=True):
            if isinstance(entry, Problem):
                rejected.append(Rejected(item, "decode", entry))
            else:
                kept.append(Kept(item, entry, label))
        copies = duplicate_groups(kept, spool, datasets, params.ingest.duplicate_correlation)
        rows, dropped = divide(kept, copies, params.ingest, params.seed)
        rejected += dropped
        _require_classes(rows, rejected)
        table.write(
            _with_pixels(rows, spool), paths.CORPUS, megabytes=params.ingest.shard_megabytes
        )
    table.write_text(paths.QUARANTINE, ledger.quarantine_csv(rejected))
    report = ledger.summary(items, rows, rejected, datasets)
    report["duplicates"] = ledger.group_sizes(copies)
    report["unread"] = {part.name: {"images": part.images, "why": part.reason} for part in unread}
    report["bayes_auc"] = _bayes_auc(data)
    table.write_json(paths.INGEST_REPORT, report)


def _bayes_auc(data: Path) -> float | None:
    """The AUC no classifier can beat, which only the phantom corpus knows of itself."""
    phantom = data / "phantom.json"
    if not phantom.is_file():
        return None
    return float(json.loads(phantom.read_text(encoding="utf-8"))["bayes_auc"])


def read(dataset: Dataset, data: Path) -> Iterator[Item]:
    """Every record of a dataset, and every image file in its folders that became none."""
    claimed = set()
    for record in dataset.source.read(dataset.root):
        if record.path is not None:
            claimed.add(record.path)
            place = record.path.relative_to(data).as_posix()
        else:
            place = (dataset.root.relative_to(data) / (record.row or "")).as_posix()
        yield Item(dataset, record, place)
    problem = Problem("outside-layout", "the published layout has no labelled image in this place")
    for folder in dataset.folders:
        for path in walk_images(folder) if folder.is_dir() else ():
            if path not in claimed:
                name = path.relative_to(dataset.root).with_suffix("").as_posix()
                record = Record(name, path, None, "train", Facts(problem=problem))
                yield Item(dataset, record, path.relative_to(data).as_posix())


def screen(
    items: Sequence[Item], indeterminate: Literal["drop", "benign", "malignant"]
) -> tuple[list[tuple[Item, str]], list[Rejected]]:
    """Items with an image and a label, and those without. Equal ids keep the first location."""
    usable: list[tuple[Item, str]] = []
    rejected: list[Rejected] = []
    seen: dict[str, str] = {}
    for item in items:
        facts = item.record.facts
        problem, label = facts.problem, facts.label
        if label == "indeterminate" and indeterminate != "drop":
            label = indeterminate
        if problem is None and item.image_id in seen:
            first = seen[item.image_id]
            problem = Problem("repeated-id", f"{first} has the same name; rename one of the files")
        if problem is None and label not in CLASSES:
            what = facts.diagnosis or "this diagnosis"
            reason = f"{what} is neither benign nor malignant; ingest.indeterminate decides"
            problem = Problem("indeterminate", reason)
        if problem is not None or label is None:
            rejected.append(Rejected(item, "source", problem or Problem("no-label", "no label")))
            continue
        seen[item.image_id] = item.location
        usable.append((item, label))
    return usable, rejected


def _path(item: Item) -> Path:
    assert item.record.path is not None  # `screen` lets files pass only
    # Worker processes keep the working directory of the moment they were started in.
    return item.record.path.absolute()


def _rule(item: Item, settings: Ingest) -> Rule:
    published = settings.scale == "published"
    scale = item.dataset.source.published_scale if published else None
    return Rule(settings.minimum_side, scale, settings.jpeg_quality)


def duplicate_groups(
    kept: Sequence[Kept], spool: Spool, datasets: Sequence[Dataset], correlation: float
) -> list[str | None]:
    """Duplicate group of each image: equal bytes, confirmed likeness, or a published pair."""
    import numpy as np

    from dermaflux.progress import progress

    ids = [image.item.image_id for image in kept]
    position = {name: index for index, name in enumerate(ids)}
    pairs = duplicates.equal_pairs([image.stored.sha256 for image in kept])
    for dataset in datasets:
        for names in dataset.source.pairs(dataset.root):
            one, two = (position.get(f"{dataset.source.name}/{name}") for name in names)
            if one is not None and two is not None:
                pairs.append((one, two))
    edges = [np.array(pairs, dtype=np.int64).reshape(-1, 2)]

    def thumbnails(chosen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return spool.thumbnails([kept[index].stored for index in chosen])

    with progress("duplicates", len(kept)) as advance:
        for found in duplicates.copies(len(kept), thumbnails):
            edges.append(found.pairs(correlation))
            advance(found.looked_at)
    return splits.groups(ids, np.concatenate(edges))


def divide(
    kept: Sequence[Kept], copies: Sequence[str | None], settings: Ingest, seed: int
) -> tuple[list[Row], list[Rejected]]:
    """Corpus rows without pixels, in output order, and what leaves because of other images."""
    ids = [image.item.image_id for image in kept]
    facts = [image.item.record.facts for image in kept]
    held_out = [image.item.record.split == "test" for image in kept]
    lesions, patients = [f.lesion_id for f in facts], [f.patient_id for f in facts]
    out = splits.leaks(splits.ties(ids, held_out, copies, lesions, patients))
    stages: dict[int, Literal["leak", "duplicate"]] = dict.fromkeys(out, "leak")
    if settings.duplicates == "drop":
        left = [index for index in range(len(kept)) if index not in out]
        sides = [min(kept[index].stored.width, kept[index].stored.height) for index in left]
        chosen = splits.surplus(
            [ids[index] for index in left],
            [copies[index] for index in left],
            [kept[index].label for index in left],
            sides,
        )
        for place, problem in chosen.items():
            out[left[place]] = problem
            stages[left[place]] = "duplicate"
    labels = splits.components(len(kept), copies, lesions, patients)
    parts = splits.assign(ids, held_out, labels, settings.validation_fraction, seed)
    rows = [
        (_row(image, copies[index], parts[index]), image.stored)
        for index, image in enumerate(kept)
        if index not in out
    ]
    rows.sort(key=lambda pair: (table.SPLITS.index(pair[0]["split"]), pair[0]["image_id"]))
    rejected = [
        Rejected(kept[index].item, stages[index], problem, kept[index].stored.scale)
        for index, problem in out.items()
    ]
    return rows, rejected


def _row(image: Kept, group: str | None, split: str) -> dict[str, Any]:
    source, facts, stored = image.item.dataset.source, image.item.record.facts, image.stored
    return {
        "image_id": image.item.image_id,
        "source": source.name,
        "licence": source.licence,
        "modality": facts.modality or source.modality,
        "label": image.label,
        "diagnosis": facts.diagnosis,
        "patient_id": facts.patient_id,
        "lesion_id": facts.lesion_id,
        "skin_tone": facts.skin_tone,
        "width": stored.width,
        "height": stored.height,
        "scale": stored.scale,
        "split": split,
        "sha256": stored.sha256,
        "phash": f"{stored.phash:016x}",
        "duplicate_group": group,
    }


def _with_pixels(rows: Sequence[Row], spool: Spool) -> Iterator[dict[str, Any]]:
    for row, stored in rows:
        picture = {"bytes": spool.encoded(stored), "path": f"{row['image_id']}.jpg"}
        yield {"image": picture, **row}


def _require_classes(rows: Sequence[Row], rejected: Sequence[Rejected]) -> None:
    counts = Counter(row["label"] for row, _ in rows)
    for label in CLASSES:
        if not counts[label]:
            rules = Counter(reject.problem.rule for reject in rejected).most_common(3)
            why = ", ".join(f"{rule} {count}" for rule, count in rules) or "nothing"
            raise InputError(
                f"the corpus would hold {counts['benign']} benign and {counts['malignant']} "
                f"malignant images (quarantined: {why}) and needs at least 1 of each; add a "
                f"dataset with {label} images or loosen the section ingest"
            )
