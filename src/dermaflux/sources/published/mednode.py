"""MED-NODE: photographs without a dermoscope, in two folders.

Reads ``complete_mednode_dataset/{melanoma,naevus}/*.jpg``, with or without the outer folder. The
folder gives the label (British spelling); stems are plain numbers, so the path is the id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dermaflux.sources.adapter import Counts, OpenFiles, Record, Source
from dermaflux.sources.reading.folders import class_folders, unwrapped

_WRAPPER = "complete_mednode_dataset"
_DIAGNOSES = {"malignant": "melanoma", "benign": "nevus"}


def read(root: Path) -> Iterator[Record]:
    """Records of both folders."""
    labels = {"melanoma": "malignant", "naevus": "benign"}
    wrapper = root / _WRAPPER
    inner = unwrapped(wrapper, lambda folder: any((folder / name).is_dir() for name in labels))
    for record in class_folders(inner if wrapper.is_dir() else root, labels, "train"):
        facts = replace(record.facts, diagnosis=_DIAGNOSES[str(record.facts.label)])
        yield replace(record, facts=facts)


SOURCE = Source(
    name="mednode",
    title="MED-NODE",
    licence="research-only",  # the publisher states none
    modality="clinical",
    citation="Giotis et al. 2015 (10.1016/j.eswa.2015.04.034)",
    url="https://www.cs.rug.nl/~imaging/databases/melanoma_naevi/",
    published_scale=512,
    markers=(_WRAPPER,),
    shared_markers=("melanoma", "naevus"),
    claims=(_WRAPPER,),
    read=read,
    counts={"train": Counts(170, 100, 70)},
    mapping="folder: melanoma malignant, naevus benign (Giotis et al. 2015)",
    download=OpenFiles(
        "https://www.cs.rug.nl/~imaging/databases/melanoma_naevi", (f"{_WRAPPER}.zip",)
    ),
)
