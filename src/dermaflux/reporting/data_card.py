"""The data card of the corpus: sources, licences, citations, counts and split rules, as Markdown.

Pure: made from the parameters and what `ingest` counted. The head is that of a dataset card of the
Hugging Face Hub (https://huggingface.co/docs/hub/datasets-cards).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dermaflux.core import table
from dermaflux.params import Params

_COUNTS = ("in", "quarantined", "kept")
_HEAD = """---
pretty_name: DermaFlux corpus
task_categories: [image-classification, text-to-image]
license: other
---

# Data card

Images of skin lesions, labelled benign or malignant, read from the published datasets below by
`dermaflux ingest`. Each image keeps the licence of its dataset. Not for clinical use.
"""
_CLEAN = (
    "Published test parts are the test split. Whatever shares a picture, a lesion, a patient or a "
    "published duplicate with a test image leaves training (reports/leaks.csv), and one image of "
    "each group of copies stays.",
    "Images that share a picture, a lesion or a patient lie on one side of the split between "
    "training and validation. A hash of seed {seed} and a group's first id sends about "
    "{fraction:.0%} of the groups to validation.",
    "Images with a shorter side below {side} pixels are left out. Indeterminate diagnoses: "
    "`{indeterminate}`.",
)
_PUBLISHED = (
    "The paper's reading of the published parts: test images of ISIC 2019 and both Kaggle sets are "
    "the test split, DERM12345's are in training. Copies, shared lesions and shared patients stay "
    "on both sides: this corpus leaks, for comparison with the paper.",
    "Each dataset has one scale, whatever the size of its images; indeterminate diagnoses are left "
    "out of HIBA only.",
    "About {fraction:.0%} of the training groups are validation images (seed {seed}).",
)


def text(params: Params, report: dict[str, Any]) -> str:
    """The card of a corpus, from the content of reports/ingest.json."""
    rules = _PUBLISHED if report["policy"] == "as_published" else _CLEAN
    filled = [
        rule.format(
            seed=params.seed,
            fraction=params.ingest.validation_fraction,
            side=params.ingest.minimum_side,
            indeterminate=params.ingest.indeterminate,
        )
        for rule in rules
    ]
    sections = (
        _HEAD,
        "## Sources\n",
        _table(("source", "title", "licence", *_COUNTS), _sources(report)),
        "## Licences of the kept images\n",
        _table(("licence", "images"), sorted(report["licences"].items())),
        "## Images kept\n",
        _table(("split", "source", "label", "scale in pixels", "images"), _kept(report["kept"])),
        f"## Rules (`ingest.policy: {report['policy']}`)\n",
        *(f"- {rule}\n" for rule in filled),
        "\n## Citations\n",
        *(f"- {one['title']}: {one['citation']}. {one['url']}\n" for _, one in _named(report)),
    )
    return "\n".join(sections)


def _named(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(report["sources"].items())


def _sources(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows = [
        (name, one["title"], one["licence"], *(one[count] for count in _COUNTS))
        for name, one in _named(report)
    ]
    return [*rows, ("all", "", "", *(report["images"][count] for count in _COUNTS))]


def _kept(kept: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (split, source, label, scale, count)
        for split in table.SPLITS
        for source, labels in sorted(kept.get(split, {}).items())
        for label, scales in sorted(labels.items())
        for scale, count in sorted(scales.items(), key=lambda pair: int(pair[0]))
    ]


def _table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    """A Markdown table; whole numbers stand to the right, with separators."""
    rows = list(rows)
    right = {place for row in rows for place, cell in enumerate(row) if isinstance(cell, int)}
    ruler = ("---:" if place in right else "---" for place in range(len(header)))
    lines = (header, ruler, *(map(_cell, row) for row in rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")
