"""What `ingest` reports: the quarantine and leak tables, and counts that must add up. Pure.

Gives the lines that the stage prints, the text of reports/quarantine.csv and reports/leaks.csv
and the content of reports/ingest.json; in = kept + quarantined, in all and for each dataset and
scale.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dermaflux.core.table import SPLITS
from dermaflux.core.vocabulary import CLASSES
from dermaflux.corpus.splitting.records import DecodedItem, Item, Rejection
from dermaflux.corpus.splitting.selection import Selection
from dermaflux.corpus.splitting.splits import LEAK_COLUMNS
from dermaflux.errors import one_line, quoted
from dermaflux.paths import QUARANTINE
from dermaflux.sources.discovery import Dataset
from dermaflux.sources.folder_parts import test_folder
from dermaflux.sources.reading.own_values import listed

_LISTED = 20  # values of a column that nothing knows, commonest first
_QUARANTINE_COLUMNS = ("source", "location", "image_id", "stage", "rule", "reason")


def quarantine_csv(rejections: Sequence[Rejection]) -> str:
    """The quarantine table as CSV text, ordered by source and location."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_QUARANTINE_COLUMNS)
    rows = [
        (
            rejection.item.dataset.source.name,
            rejection.item.location,
            rejection.item.image_id,
            rejection.stage,
            rejection.problem.rule,
            rejection.problem.reason,
        )
        for rejection in rejections
    ]
    writer.writerows(sorted(rows))
    return out.getvalue()


def leaks_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """The table of images that leave training because of a test image, as CSV text."""
    out = io.StringIO()
    writer = csv.DictWriter(out, LEAK_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


_RULES = 3  # named in a line
_STRAYS = 0.25  # of the share asked for


def per_dataset(
    items: Sequence[Item],
    rejections: Sequence[Rejection],
    datasets: Sequence[Dataset],
    rest: Literal["kept", "usable"],
) -> list[str]:
    """A line for each dataset: what went in, and what is left out for which rules.

    `rest` says what the others are: `usable` where the stage fails and nothing is kept. A dataset
    of which nothing is kept has a second line with an example.
    """
    read = Counter(item.dataset.source.name for item in items)
    lost: dict[str, list[Rejection]] = {dataset.source.name: [] for dataset in datasets}
    for rejection in rejections:
        lost[rejection.item.dataset.source.name].append(rejection)
    lines = []
    for name, left in lost.items():
        kept = read[name] - len(left)
        rules = Counter(rejection.problem.rule for rejection in left).most_common()
        named = [f"{rule} {count:,}" for rule, count in rules[:_RULES]]
        named += [f"{len(rules) - _RULES} other rules"] * (len(rules) > _RULES)
        why = f" ({', '.join(named)})" if named else ""
        lines.append(f"{name}: {read[name]:,} in, {kept:,} {rest}, {len(left):,} left out{why}")
        if not kept:
            lines.append(f"warning: nothing of {name} is {rest}{_example(left, rules)}")
    return lines


def _example(left: Sequence[Rejection], rules: Sequence[tuple[str, int]]) -> str:
    """The reason of one of the most frequent rule's records."""
    if not rules:
        return "; its folder holds no image"
    first = next(rejection for rejection in left if rejection.problem.rule == rules[0][0])
    return f", such as {quoted(first.item.location)}: {one_line(first.problem.reason, 200)}"


def test_drawn(
    decoded: Sequence[DecodedItem],
    selection: Selection,
    fraction: float | None,
    seed: int,
    by: Literal["published", "group", "image"],
) -> dict[str, Any] | None:
    """What the test part was drawn from and how, also in words; None where one is published."""
    if not selection.unpublished_test:
        return None
    kept = selection.kept()
    test = [index for index in kept if selection.splits[index] == "test"]
    patients = Counter(decoded[index].item.record.facts.patient_id for index in test)
    labels = Counter(selection.labels[index] for index in test)
    drawn = {
        "fraction": fraction,
        "by": by,
        "seed": seed,
        "images": len(test),
        "of": len(kept),
        **{label: labels[label] for label in CLASSES},
        "patients": len(patients) - (None in patients),
        "without_patient": patients[None],
        "sources": dict(Counter(decoded[index].item.dataset.source.name for index in test)),
    }
    return drawn | {"sentence": _drawn_sentence(drawn)}


def outcome(report: Mapping[str, Any]) -> list[str]:
    """The last lines of the stage: what the corpus holds, and where its test part comes from."""
    images = report["images"]
    parts = []
    for split in SPLITS:
        by_source = report["kept"].get(split, {}).values()
        counts = [
            f"{sum(sum(labels.get(label, {}).values()) for labels in by_source):,} {label}"
            for label in CLASSES
        ]
        parts.append(f"{split} {' and '.join(counts)}")
    lines = [
        f"ingest: {images['kept']:,} of {images['in']:,} images kept: {', '.join(parts)}; "
        f"{images['quarantined']:,} left out, each with its reason in {QUARANTINE.as_posix()}"
    ]
    if report["test_drawn"] is not None:
        lines.append(f"ingest: {report['test_drawn']['sentence']}")
    return lines


def _drawn_sentence(drawn: Mapping[str, Any]) -> str:
    """How the test part was drawn, in one sentence without a full stop."""
    unknown, share = drawn["without_patient"], drawn["images"] / max(drawn["of"], 1)
    known = [f"{drawn['patients']:,} known patients"] * bool(drawn["patients"])
    known += [f"{unknown:,} images without a patient id"] * bool(unknown)
    origin = f", from {' and '.join(known)}" if known else ""
    # A hash decides for each group on its own, which is what lets new images move no old ones.
    strays = abs(share / drawn["fraction"] - 1) > _STRAYS
    why = "No kept image is in a published test part, so the test split was drawn here"
    if drawn["by"] != "published":
        why = f"By ingest.test_by {drawn['by']} the test split was drawn from the training parts"
    units = "by patient, lesion and duplicate group"
    if drawn["by"] == "image":
        units = "image by image, with images of one lesion on both sides and figures too good"
    return (
        f"{why} {units} (ingest.test_fraction {drawn['fraction']:g}, seed "
        f"{drawn['seed']}): {drawn['images']:,} of {drawn['of']:,} images ({share:.1%}), "
        f"{drawn['benign']:,} benign and {drawn['malignant']:,} malignant"
        + origin
        + (", since a hash draws each of them and few stray from that share" if strays else "")
    )


def summary(
    items: Sequence[Item],
    decoded: Sequence[DecodedItem],
    selection: Selection,
    rejections: Sequence[Rejection],
    datasets: Sequence[Dataset],
) -> dict[str, Any]:
    """Counts of the stage: images and unmatched rows that went in, were kept, were quarantined."""
    kept = selection.kept()
    read = Counter(item.dataset.source.name for item in items)
    kept_per_source = Counter(decoded[index].item.dataset.source.name for index in kept)
    rejected = Counter(rejection.item.dataset.source.name for rejection in rejections)
    sources = {
        d.source.name: {
            "title": d.source.title,
            "licence": d.source.licence,
            "citation": d.source.citation,
            "url": d.source.url,
            "in": read[d.source.name],
            "kept": kept_per_source[d.source.name],
            "quarantined": rejected[d.source.name],
        }
        for d in datasets
    }
    return {
        "images": {"in": len(items), "kept": len(kept), "quarantined": len(rejections)},
        "sources": sources,
        "licences": dict(Counter(decoded[index].item.licence for index in kept)),
        "kept": _nested(decoded, selection, kept),
        "scales": _by_scale(Counter(str(selection.scales[index]) for index in kept), rejections),
        "quarantine": {
            "stage": dict(Counter(rejection.stage for rejection in rejections)),
            "rule": dict(Counter(rejection.problem.rule for rejection in rejections)),
        },
        "duplicates": _group_sizes(selection.groups),
        "unread_values": {
            source: {
                column: {"rows": values.total(), "values": dict(values.most_common(_LISTED))}
                for column, values in columns.items()
            }
            for source, columns in _unread_values(items).items()
        },
    }


def _unread_values(items: Sequence[Item]) -> dict[str, dict[str, Counter[str]]]:
    """Source -> column -> value -> rows in which it gave nothing: placeholders, unknown words."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for item in items:
        for column, value in item.record.facts.unread:
            columns = counts.setdefault(item.dataset.source.name, {})
            columns.setdefault(column, Counter())[value] += 1
    return counts


def unread_lines(items: Sequence[Item]) -> list[str]:
    """One sentence per column with values that gave nothing, with the commonest of them."""
    rows = Counter(item.dataset.source.name for item in items if item.record.row)
    return [
        f"{source}: the column {quoted(column)} has no usable value in {values.total()} of "
        f"{rows[source]} rows: {listed(values)}"
        for source, columns in _unread_values(items).items()
        for column, values in columns.items()
    ]


def test_folder_lines(items: Sequence[Item]) -> list[str]:
    """One sentence per own dataset whose folders make test images by more than the word test."""
    counts: dict[str, Counter[str]] = {}
    for item in items:
        record, dataset = item.record, item.dataset
        if record.path and record.split == "test" and not dataset.source.markers:
            name = test_folder(record.path.relative_to(dataset.root).parts[:-1])
            if name and record.facts.split is None and name.casefold() != "test":
                counts.setdefault(dataset.source.name, Counter())[name] += 1
    return [
        f"{source}: test images by the name of a folder: {listed(names)}"
        for source, names in counts.items()
    ]


def _nested(
    decoded: Sequence[DecodedItem], selection: Selection, kept: Sequence[int]
) -> dict[str, Any]:
    """Split -> source -> label -> scale -> images kept."""
    counts: dict[str, Any] = {}
    for index in kept:
        source = decoded[index].item.dataset.source.name
        labels = counts.setdefault(str(selection.splits[index]), {}).setdefault(source, {})
        scales = labels.setdefault(selection.labels[index], {})
        scale = str(selection.scales[index])
        scales[scale] = scales.get(scale, 0) + 1
    return counts


def _by_scale(kept: Counter[str], rejections: Sequence[Rejection]) -> dict[str, dict[str, int]]:
    """Scale -> in, kept, quarantined; `none` counts rejections before an image had a scale."""
    lost = Counter(str(rejection.scale or "none") for rejection in rejections)
    return {
        scale: {"in": kept[scale] + lost[scale], "kept": kept[scale], "quarantined": lost[scale]}
        for scale in sorted(kept.keys() | lost.keys())
    }


def _group_sizes(groups: Sequence[str | None]) -> dict[str, int]:
    """Number of duplicate groups, of images in them, and of images in the largest."""
    sizes = Counter(name for name in groups if name is not None)
    return {
        "groups": len(sizes),
        "images": sum(sizes.values()),
        "largest": max(sizes.values(), default=0),
    }
