"""DDI, Diverse Dermatology Images: clinical photographs chosen for their range of skin tones.

Reads ``ddidiversedermatologyimages/*.png`` with ``ddi_metadata.csv`` beside them, or both without
that folder. The first column has no name. The label is the column `malignant` (TRUE where a
spreadsheet saved it) and never derived from `disease`: actinic keratosis is False there and the
atypical spindle cell nevus of Reed True.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dermaflux.core import vocabulary
from dermaflux.sources.adapter import Counts, Facts, Record, Source
from dermaflux.sources.reading.files import by_stem, has_images, image_files, join
from dermaflux.sources.reading.folders import unwrapped
from dermaflux.sources.reading.tables import OptionalValues, Row, bad_value, read_csv, truth_value

_FOLDER = "ddidiversedermatologyimages"
_TABLE = "ddi_metadata.csv"


def _facts(row: Row) -> Facts:
    flag = truth_value(row.values["malignant"])
    if flag is None:
        return Facts(problem=bad_value(row, "malignant", "it must be True or False"))
    optional = OptionalValues()
    return Facts(
        label="malignant" if flag else "benign",
        diagnosis=vocabulary.diagnosis(row.values["disease"]),
        skin_tone=optional.read(row, "skin_tone", vocabulary.fitzpatrick),
        unread=tuple(optional.unread),
    )


def read(root: Path) -> Iterator[Record]:
    """Records of all images; the published file has no patient ids."""
    folder = unwrapped(root / _FOLDER if (root / _FOLDER).is_dir() else root, has_images)
    tables = (folder / _TABLE, root / _FOLDER / _TABLE, root / _TABLE)
    table = next((path for path in tables if path.is_file()), root / _TABLE)
    rows = read_csv(table, ("DDI_file", "skin_tone", "malignant"), ("disease",))
    yield from join(by_stem(image_files(folder)), rows, "DDI_file", _facts, "train", ".png")


SOURCE = Source(
    name="ddi",
    title="DDI (Diverse Dermatology Images)",
    licence="research-only",
    modality="clinical",
    citation="Daneshjou et al. 2022 (10.1126/sciadv.abq6147)",
    url="https://ddi-dataset.github.io",
    published_scale=256,
    markers=(_FOLDER, _TABLE),
    claims=(_FOLDER, _TABLE),
    read=read,
    counts={"train": Counts(656, 485, 171)},
    mapping="malignant (Daneshjou et al. 2022)",
    access="agreement",
    by_hand="sign the research use agreement at https://stanfordaimi.azurewebsites.net/datasets/"
    "35866158-8196-48d8-87bf-50dca81df965 and unpack the download into FOLDER/ddi",
)
