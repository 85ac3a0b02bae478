"""PAD-UFES-20: smartphone photographs as PNG, with the patients' answers to a questionnaire.

Reads ``images/imgs_part_{1,2,3}/*.png`` (at any depth, since each part is a separate zip file)
with ``metadata.csv``, or the ISIC archive's copy. The published columns are spelled `fitspatrick`
and `biopsed`; some 800 rows leave the clinical columns empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.sources.adapter import Counts, Facts, Record, Source
from dermaflux.sources.reading import archive
from dermaflux.sources.reading.files import by_stem, join, walk_images
from dermaflux.sources.reading.tables import OptionalValues, Row, bad_value, read_csv

CODES = {
    "BCC": ("malignant", "basal cell carcinoma"),
    "SCC": ("malignant", "squamous cell carcinoma"),
    "MEL": ("malignant", "melanoma"),
    "ACK": ("indeterminate", "actinic keratosis"),
    "NEV": ("benign", "nevus"),
    "SEK": ("benign", "seborrheic keratosis"),
}
"""`diagnostic` -> (label, diagnosis). SCC includes Bowen's disease; the authors count ACK among
the benign diseases, the ISIC archive's taxonomy as indeterminate."""

_FOLDERS = ("images", "imgs_part_1", "imgs_part_2", "imgs_part_3")


def _facts(row: Row) -> Facts:
    values = row.values
    if values["diagnostic"] not in CODES:
        return Facts(problem=bad_value(row, "diagnostic", f"it must be one of {', '.join(CODES)}"))
    label, diagnosis = CODES[values["diagnostic"]]
    optional = OptionalValues()
    patient = optional.read(row, "patient_id", vocabulary.identifier)
    lesion = optional.read(row, "lesion_id", partial(vocabulary.identifier, zero=True))
    return Facts(
        label=label,
        diagnosis=diagnosis,
        patient_id=f"padufes20:{patient}" if patient else None,
        # 1,641 lesion numbers are shared by 1,891 pairs of patient and lesion.
        lesion_id=f"padufes20:{patient}:{lesion}" if patient and lesion else None,
        skin_tone=optional.read(row, "fitspatrick", vocabulary.fitzpatrick),
        unread=tuple(optional.unread),
    )


def read(root: Path) -> Iterator[Record]:
    """Records of the three parts."""
    if archive.is_layout(root):
        yield from archive.read(root)
        return
    needed = ("img_id", "patient_id", "lesion_id", "diagnostic")
    rows = read_csv(root / "metadata.csv", needed, ("fitspatrick",))
    images = (path for folder in _FOLDERS for path in walk_images(root / folder))
    yield from join(by_stem(images), rows, "img_id", _facts, "train", ".png")


SOURCE = Source(
    name="padufes20",
    title="PAD-UFES-20",
    licence="CC-BY",
    modality="clinical",
    citation="Pacheco et al. 2020 (10.1016/j.dib.2020.106221; data 10.17632/zr7vgbcyr2.1)",
    url="https://data.mendeley.com/datasets/zr7vgbcyr2/1",
    published_scale=512,
    markers=("images/imgs_part_1", "imgs_part_1"),
    shared_markers=("metadata.csv",),
    claims=(*_FOLDERS, "metadata.csv"),
    read=read,
    counts={"train": Counts(2_298, 479, 1_089, 730)},
    mapping="diagnostic: BCC, SCC, MEL malignant (Ricci Lara et al. 2023), ACK indeterminate",
    by_hand="open https://data.mendeley.com/datasets/zr7vgbcyr2/1, choose Download All, and unpack "
    "it and the three zip files inside into FOLDER/padufes20",
)
