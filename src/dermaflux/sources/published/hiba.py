"""HIBA: dermoscopic and clinical photographs of the Hospital Italiano de Buenos Aires, 2019-2022.

Reads ``images/*.jpg`` (DOI bundle) or ``*.jpg`` (isic-cli) with ``metadata.csv`` or the bundle's
long name, in both generations of the archive's columns, and the authors' ``SupplementaryData.csv``
(`isic_id,skin_type`) where the columns have no skin type. Collection 251; the older collections
175 and 176 hold other revisions of the same images and must not be added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.core.file_names import image_key
from dermaflux.sources.adapter import Collection, Counts, Record, Source
from dermaflux.sources.reading import archive
from dermaflux.sources.reading.tables import OptionalValues, Row, read_csv

_LONG_NAME = "hospital-italiano-de-buenos-aires-skin-lesions-images-2019-2022.csv"
_SUPPLEMENT = "SupplementaryData.csv"


def read(root: Path) -> Iterator[Record]:
    """Records, with the skin tone of the supplement where the metadata has none."""
    tones: dict[str, Row] = {}
    if (root / _SUPPLEMENT).is_file():
        rows = read_csv(root / _SUPPLEMENT, ("isic_id", "skin_type"))
        tones = {image_key(row.values["isic_id"]): row for row in rows}
    for record in archive.read(root, (archive.METADATA, _LONG_NAME)):
        facts, row = record.facts, tones.get(image_key(record.original_id))
        if row and not facts.skin_tone:
            optional = OptionalValues(list(facts.unread))
            tone = optional.read(row, "skin_type", vocabulary.fitzpatrick)
            facts = replace(facts, skin_tone=tone, unread=tuple(optional.unread))
        yield replace(record, facts=facts)


SOURCE = Source(
    name="hiba",
    title="HIBA Skin Lesions Images (2019-2022)",
    licence="CC-BY",
    modality="dermoscopic",
    citation="Ricci Lara et al. 2023 (10.1038/s41597-023-02630-0)",
    url="https://api.isic-archive.com/doi/hospital-italiano-de-buenos-aires-skin-lesions-images-2019-2022/",
    published_scale=512,
    markers=(_LONG_NAME,),
    shared_markers=(archive.METADATA,),
    claims=(_LONG_NAME, "images"),
    read=read,
    counts={"train": Counts(1_616, 802, 751, 63)},
    mapping="diagnosis_1, before 2026 diagnosis (ISIC archive taxonomy); actinic keratosis, which "
    "the old column benign_malignant calls benign, is indeterminate",
    download=Collection(251),
    indeterminate_dropped_in_paper=True,
)
