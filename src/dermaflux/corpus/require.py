"""What a corpus needs so that it can be trained on and tested on; refused as early as it is known.

Pure. The first check needs folder listings only, so that nobody waits for half a million images to
be decoded before it is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dermaflux.core.vocabulary import CLASSES
from dermaflux.corpus.splitting import policies
from dermaflux.corpus.splitting.records import Item, Rejection
from dermaflux.corpus.splitting.selection import Selection
from dermaflux.errors import InputError, quoted

if TYPE_CHECKING:
    from dermaflux.params import Ingest


def before_decoding(
    usable: Sequence[Item], rejections: Sequence[Rejection], settings: Ingest
) -> None:
    """Raise `InputError` when no choice among the `usable` images has both classes and a test part.

    `rejections` are the items that were left out so far.
    """
    policy = policies.policy(settings.policy, settings)
    if policy.validation_by == "published":
        _validation_part(usable)
    labels: Counter[str | None] = Counter()
    tests = 0
    for item in usable:
        source, record = item.dataset.source, item.record
        labels[policy.label(source, record.facts.label or "")] += 1
        tests += policy.held_out(source, record.split)
    _classes(labels, rejections)
    _test_part(tests, len(usable), settings)


def before_writing(chosen: Selection, rejections: Sequence[Rejection], settings: Ingest) -> None:
    """Raise `InputError` when what was chosen lacks a class, a test part or the validation part."""
    kept = chosen.kept()
    _classes(Counter(chosen.labels[index] for index in kept), rejections)
    tests = sum(chosen.splits[index] == "test" for index in kept)
    _test_part(tests, len(kept), settings)
    taken = settings.validation_by == "published"
    if taken and not any(chosen.splits[index] == "validation" for index in kept):
        raise InputError(
            f"ingest.validation_by is published but none of the {len(kept):,} images that are kept "
            "is in a published validation part; leave isic2019, whose test part holds those of "
            "isic2018, out of ingest.sources, or set it to group"
        )


def _validation_part(usable: Sequence[Item]) -> None:
    if not any(item.record.split == "validation" for item in usable):
        raise InputError(
            f"ingest.validation_by is published but none of the {len(usable):,} images is in a "
            "published validation part; add isic2018 with its validation images, or set it to group"
        )


def _classes(counts: Mapping[str | None, int], rejections: Sequence[Rejection]) -> None:
    for label in CLASSES:
        if not counts.get(label):
            rules = Counter(rejection.problem.rule for rejection in rejections).most_common(3)
            why = ", ".join(f"{rule} {count}" for rule, count in rules) or "nothing"
            first = next((r for r in rejections if rules and r.problem.rule == rules[0][0]), None)
            example = f", such as {quoted(first.item.location)}" if first else ""
            raise InputError(
                f"the corpus would hold {counts.get('benign', 0)} benign and "
                f"{counts.get('malignant', 0)} malignant images (quarantined: {why}{example}) and "
                f"needs at least 1 of each; add a dataset with {label} images or loosen the "
                "section ingest"
            )


def _test_part(tests: int, images: int, settings: Ingest) -> None:
    if not tests and settings.test_fraction is None:
        raise InputError(
            f"none of the {images:,} images is a test image and ingest.test_fraction is null; set "
            "it, such as 0.2, to have a test part drawn by patient, lesion and duplicate group, or "
            "put your test images into a folder called test, name their column in ingest.own "
            "columns.split, or write split: test in their entry of ingest.own"
        )
