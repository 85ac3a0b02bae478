"""Cards of the pool and of the adapter, in the format of the Hugging Face Hub.

Pure: written from the parameters, the reports of the stages and counts of the pool. The metadata
follow https://huggingface.co/docs/hub/datasets-cards and https://huggingface.co/docs/hub/model-cards;
the card of the corpus is `reporting.data_card`, that of a classifier `registry.model_card`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermaflux.reporting import data_card

TAGS = ["dermatology", "skin-lesion", "synthetic-data", "not-for-clinical-use"]
_FLUX_LICENCE: dict[str, Any] = {
    "license": "other",
    "license_name": "flux-1-dev-non-commercial-license",
    "license_link": "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
}


@dataclass(frozen=True)
class Generator:
    """What both cards say of the model that made the images."""

    name: str
    """Value of the parameter `generator`."""
    backbone: str
    """Hub id or folder of the frozen model below it; the name itself where there is none."""
    revision: str | None
    licence: str
    """Of weights and images."""
    facts: Mapping[str, Any]
    """finetune.json."""
    sources: Mapping[str, str]
    """Dataset of the corpus that it learned from -> licence."""

    @property
    def imported(self) -> str | None:
        """Where an adapter is from that others trained; None for one that was trained here."""
        return self.facts.get("imported")

    @property
    def hub_id(self) -> str | None:
        """The backbone where it is a repository of the hub."""
        return self.backbone if self.revision is not None else None


def licence_metadata(licence: str) -> dict[str, Any]:
    """The fields of a card for a licence as a manifest states it."""
    if licence.startswith("FLUX.1-dev"):
        return dict(_FLUX_LICENCE)
    if licence.lower() in ("cc0", "cc0-1.0"):
        return {"license": "cc0-1.0"}
    # The Hub takes an identifier here.
    name = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    return {"license": "other", "license_name": name or "unknown"}


def pool(
    counts: Mapping[str, int],
    weights: list[str],
    generator: Generator,
    audit: Mapping[str, Any],
    removed: int,
) -> str:
    """README.md of the synthetic pool.

    `counts` are images by label, without the `removed` ones, which the audit found memorised.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    total = sum(counts.values())
    data = DatasetCardData(
        pretty_name="DermaFlux synthetic pool",
        task_categories=["image-classification", "text-to-image"],
        annotations_creators=["machine-generated"],
        size_categories=data_card.size_category(total),
        tags=TAGS,
        configs=[data_card.configuration(["train"])],
        **licence_metadata(generator.licence),
    )
    body = data_card.rendered(
        Path(__file__).with_name("pool_card.md"),
        counts=dict(sorted(counts.items())),
        total=total,
        weights=weights,
        generator=generator,
        audit=audit,
        fid=_fid(audit),
        removed=removed,
    )
    return str(DatasetCard.from_template(data, template_str=data_card.FRAME, body=body).content)


def adapter(generator: Generator, audit: Mapping[str, Any], weights: str) -> str:
    """README.md of the LoRA; `weights` is the name of its file."""
    from huggingface_hub import ModelCard, ModelCardData

    base: dict[str, Any] = {"base_model": generator.hub_id, "base_model_relation": "adapter"}
    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*TAGS, "flux", "lora"],
        **licence_metadata(generator.licence),
        **(base if generator.hub_id else {}),
    )
    facts = {
        name: f"{value:,}" if isinstance(value, int) else str(value)
        for name, value in sorted(generator.facts.items())
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }
    body = data_card.rendered(
        Path(__file__).with_name("adapter_card.md"),
        generator=generator,
        facts=facts,
        audit=audit,
        fid=_fid(audit),
        weights=weights,
    )
    return str(ModelCard.from_template(data, template_str=data_card.FRAME, body=body).content)


def _fid(audit: Mapping[str, Any]) -> str | None:
    """FID to test images with its interval; None where it was not measured."""
    found = audit.get("fidelity", {}).get("test", {}).get("fid") or {}
    if found.get("value") is None:
        return None
    low, high = found.get("low"), found.get("high")
    interval = f" ({low:.1f} to {high:.1f})" if low is not None and high is not None else ""
    return f"{found['value']:.1f}{interval}"
