"""The data card of the corpus: sources, licences, citations, counts and split rules, as Markdown.

Pure: built from the parameters and the counts of `ingest`. The front matter is that of a dataset
card of the Hugging Face Hub (https://huggingface.co/docs/hub/datasets-cards).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dermaflux.core import table
from dermaflux.params import Params
from dermaflux.reporting import pages


def text(params: Params, report: dict[str, Any]) -> str:
    """The card of a corpus, from the content of reports/ingest.json."""
    from huggingface_hub import DatasetCardData

    front_matter = DatasetCardData(
        pretty_name="DermaFlux corpus",
        task_categories=["image-classification", "text-to-image"],
        license="other",
    )
    environment = pages.environment(Path(__file__).parent)
    environment.filters |= {"cell": _cell, "count": "{:,}".format}
    return environment.get_template("data_card.md").render(
        front_matter=front_matter.to_yaml(),
        sources=dict(sorted(report["sources"].items())),
        images=report["images"],
        licences=report["licences"],
        kept=_kept(report["kept"]),
        policy=report["policy"],
        test_drawn=report.get("test_drawn"),
        seed=params.seed,
        validation_fraction=params.ingest.validation_fraction,
        validation_by=params.ingest.validation_by,
        minimum_side=params.ingest.minimum_side,
        indeterminate=params.ingest.indeterminate,
    )


def _kept(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per split, source, label and scale, in this order."""
    return [
        {"split": split, "source": source, "label": label, "scale": scale, "images": count}
        for split in table.SPLITS
        for source, labels in sorted(kept.get(split, {}).items())
        for label, scales in sorted(labels.items())
        for scale, count in sorted(scales.items(), key=lambda pair: int(pair[0]))
    ]


def _cell(value: str) -> str:
    """Text that cannot break a Markdown table."""
    return value.replace("|", "\\|").replace("\n", " ")
