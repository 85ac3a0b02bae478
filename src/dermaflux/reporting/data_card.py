"""The data card of the corpus: sources, licences, citations, counts and split rules, as Markdown.

Pure: built from the parameters and the counts of `ingest`. A dataset card of the Hugging Face Hub
(https://huggingface.co/docs/hub/datasets-cards), made by its own library, which also reads it back;
`dermaflux package corpus` puts it beside the shards that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dermaflux.core import table
from dermaflux.params import Params
from dermaflux.reporting import pages

FRAME = "---\n{{ card_data }}\n---\n\n{{ body }}"
"""Of a card, for `from_template`: what the Hub reads as data, and what a person reads."""
SHARDS = "data"
"""Folder of the shards beside a card."""
_SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
}


def text(params: Params, report: dict[str, Any]) -> str:
    """The card of a corpus, from the content of reports/ingest.json."""
    from huggingface_hub import DatasetCard, DatasetCardData

    data = DatasetCardData(
        pretty_name="DermaFlux corpus",
        task_categories=["image-classification", "text-to-image"],
        license="other",
        license_name="licences-of-the-sources",
        annotations_creators=["expert-generated"],
        size_categories=size_category(report["images"]["kept"]),
        tags=["dermatology", "skin-lesion", "not-for-clinical-use"],
        configs=[configuration([split for split in table.SPLITS if report["kept"].get(split)])],
    )
    body = rendered(
        Path(__file__).with_suffix(".md"),
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
    return str(DatasetCard.from_template(data, template_str=FRAME, body=body).content)


def rendered(template: Path, **values: object) -> str:
    """A Markdown template with its values; `cell` and `count` are its filters."""
    environment = pages.environment(template.parent)
    environment.filters |= {"cell": _cell, "count": "{:,}".format}
    return environment.get_template(template.name).render(**values)


def configuration(splits: Sequence[str]) -> dict[str, Any]:
    """Which shards `datasets.load_dataset` opens for which split."""
    files = [{"split": split, "path": f"{SHARDS}/{split}-*.parquet"} for split in splits]
    return {"config_name": "default", "data_files": files}


def size_category(images: int) -> str:
    """The Hub's word for a number of rows."""
    return next((name for limit, name in _SIZES.items() if images < limit), "100M<n<1B")


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
