"""Folders in folders, as unpackers and Kaggle leave them, and the files that are no images."""

from __future__ import annotations

import os
import struct
from collections import Counter
from pathlib import Path

import pytest
from layouts import CLASSES, one_hot, touch

from dermaflux.params import OwnDataset
from dermaflux.sources.discovery import NO_ADAPTER, discover
from dermaflux.sources.reading.files import walk_images

MILK = ["AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC"]
SEVEN, TASK = ["AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC"], "ISIC2018_Task3_Training"
TRUTH = "\n".join([f"image,{','.join(CLASSES)}", f"a,{one_hot('NV')}", f"b,{one_hot('MEL')}"])
ARCHIVE = "isic_id,diagnosis_1\na,Benign\nb,Malignant\n"
DERM = "image_id,patient_id,copyright-license,split,malignancy,label\n"
PAD = "img_id,patient_id,lesion_id,diagnostic\na.png,P,1,NEV\nb.png,P,2,MEL\n"
LAYOUTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "isic2019": (
        {
            "ISIC_2019_Training_GroundTruth.csv": TRUTH,
            "ISIC_2019_Training_Metadata.csv": "image,lesion_id\na,L\nb,M\n",
        },
        ["ISIC_2019_Training_Input/a.jpg", "ISIC_2019_Training_Input/b.jpg"],
    ),
    "isic2018": (
        {
            f"{TASK}_GroundTruth.csv": "\n".join(
                [f"image,{','.join(SEVEN)}"]
                + [
                    f"{name}," + ",".join(str(int(c == code)) for c in SEVEN)
                    for name, code in (("a", "NV"), ("b", "MEL"))
                ]
            ),
            f"{TASK}_LesionGroupings.csv": "image,lesion_id\na,L\nb,M\n",
        },
        [f"{TASK}_Input/a.jpg", f"{TASK}_Input/b.jpg"],
    ),
    "isic2020": (
        {"ISIC_2020_Training_GroundTruth.csv": "image_name,patient_id,target\na,P,0\nb,P,1\n"},
        ["train/a.jpg", "train/b.jpg"],
    ),
    "isic2024": (
        {"train-metadata.csv": "isic_id,target\na,0\nb,1\n"},
        ["train-image/image/a.jpg", "train-image/image/b.jpg"],
    ),
    "hiba": ({"metadata.csv": ARCHIVE}, ["images/a.jpg", "images/b.jpg"]),
    "mednode": ({}, [f"complete_mednode_dataset/{k}/1.jpg" for k in ("melanoma", "naevus")]),
    "ddi": (
        {"ddi_metadata.csv": "DDI_file,skin_tone,malignant\na.png,12,False\nb.png,56,True\n"},
        ["ddidiversedermatologyimages/a.png", "ddidiversedermatologyimages/b.png"],
    ),
    "derm12345": (
        {
            "derm12345_metadata_train.csv": DERM
            + "a,P,CC-BY,train,benign,acb\nb,P,CC-BY,train,malignant,mel\n"
        },
        ["derm12345_train_part_1/acb/a.jpg", "derm12345_train_part_1/mel/b.jpg"],
    ),
    "padufes20": (
        {"metadata.csv": PAD},
        ["images/imgs_part_1/a.png", "images/imgs_part_1/b.png"],
    ),
    "milk10k": (
        {
            "MILK10k_Training_GroundTruth.csv": "\n".join(
                [f"lesion_id,{','.join(MILK)}"]
                + [f"{k}," + ",".join(str(int(c == k)) for c in MILK) for k in ("NV", "MEL")]
            ),
            "MILK10k_Training_Metadata.csv": "isic_id,lesion_id,image_type,skin_tone_class\n"
            "a,NV,dermoscopic,3\nb,MEL,dermoscopic,3\n",
        },
        ["MILK10k_Training_Input/NV/a.jpg", "MILK10k_Training_Input/MEL/b.jpg"],
    ),
    "kaggle1": (
        {},
        [
            f"melanoma_cancer_dataset/{s}/{k}/1.jpg"
            for s in ("train", "test")
            for k in ("benign", "malignant")
        ],
    ),
    "kaggle2": ({}, [f"{s}/{k}/1.jpg" for s in ("train", "test") for k in ("Benign", "Malignant")]),
}


def build(root: Path, name: str, nested: int | None = None) -> None:
    """A dataset; with `nested`, the folder at that depth has one of its own name around."""
    tables, files = LAYOUTS[name]
    for file in files:
        *folders, last = file.split("/")
        if nested is not None and nested < len(folders):
            folders.insert(nested, folders[nested])
        touch(root, "/".join([*folders, last]))
    for table, text in tables.items():
        (root / table).write_text(text, encoding="utf-8")


def read(data: Path, name: str) -> dict[str, tuple[object, ...]]:
    """What the discovered dataset says of every image, by id."""
    (dataset,), unread = discover(data, [])
    assert (dataset.source.name, unread) == (name, [])
    records = list(dataset.source.read(dataset.root))
    assert all(record.path for record in records)
    return {r.original_id: (r.facts, r.split, r.row, Path(r.path or "").name) for r in records}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_dataset_is_read_through_folders_in_folders(name: str, tmp_path: Path) -> None:
    build(tmp_path / "plain" / name, name)
    plain = read(tmp_path / "plain", name)
    assert {facts.label for facts, *_ in plain.values()} == {"benign", "malignant"}  # type: ignore[attr-defined]
    deepest = max(file.count("/") for file in LAYOUTS[name][1])
    for depth in range(deepest):
        data = tmp_path / f"nested-{depth}"
        build(data / name, name, depth)
        touch(data / name, ".DS_Store", "__MACOSX/._x", "Thumbs.db")
        assert read(data, name) == plain, depth
    for wrapper in (f"{name}/{name}", f"{name}/archive", f"downloads/{name}"):
        data = tmp_path / wrapper.replace("/", "-")
        build(data / wrapper, name)
        assert read(data, name) == plain, wrapper


def test_renamed_folders_and_the_competition_of_isic2020(tmp_path: Path) -> None:
    rows = "image_name,patient_id,target\na,P,0\nb,P,1\n"
    touch(tmp_path / "siim", "jpeg/train/a.jpg", "jpeg/train/b.jpg", "jpeg/test/c.jpg")
    (tmp_path / "siim/train.csv").write_text(rows)
    touch(tmp_path / "MED-NODE", "melanoma/1.jpg", "naevus/1.jpg")
    touch(tmp_path / "lost+found", "1.jpg")
    datasets, unread = discover(tmp_path, [])
    assert {d.source.name: d.root.name for d in datasets} == {
        "mednode": "MED-NODE",
        "isic2020": "siim",
    }
    assert unread == []
    for dataset in datasets:
        labels = [record.facts.label for record in dataset.source.read(dataset.root)]
        assert sorted(map(str, labels)) == ["benign", "malignant"]


def test_two_folders_that_could_be_a_dataset_are_left_and_told(tmp_path: Path) -> None:
    build(tmp_path / "mednode", "mednode")
    build(tmp_path / "backup/first", "kaggle2")
    build(tmp_path / "backup/second", "kaggle2")
    build(tmp_path / "more/kaggle1", "kaggle1")
    touch(tmp_path / "more", "beside.jpg")
    datasets, unread = discover(tmp_path, [])
    assert {d.source.name: d.root.name for d in datasets} == {
        "mednode": "mednode",
        "kaggle1": "kaggle1",
    }
    assert [(part.name, part.images) for part in unread] == [("backup", 8), ("more", 1)]
    _, unread = discover(tmp_path, ["mednode"])
    assert [(p.name, p.images, p.reason) for p in unread] == [
        ("backup", 8, NO_ADAPTER),
        ("more", 5, "ingest.sources leaves it out"),
    ]


def test_a_folder_with_images_of_its_own_is_not_left_for_an_inner_one(tmp_path: Path) -> None:
    build(tmp_path / "isic2020", "isic2020")
    touch(tmp_path / "isic2020", "train/train/b.jpg", "train/masks/a.jpg")
    (dataset,), _ = discover(tmp_path, [])
    paths = [r.path for r in dataset.source.read(dataset.root)]
    assert paths == [tmp_path / "isic2020/train/a.jpg", tmp_path / "isic2020/train/b.jpg"]


JPEG, PNG, DICOM = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM"
AVIF = struct.pack(">I", 28) + b"ftypavif"


def test_every_image_is_counted_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "clinic"
    names = "a.jpg b.JPEG c.jfif d.jpe e.mpo f.HEIC g.avif h.dcm i.jp2 j.webp k.TIF l.bmp m.gif"
    images = [f"benign/{name}" for name in f"{names} n.psd o.cr2 p.DNG".split()]
    touch(root, *images)
    contents = {"q": JPEG, "r.2020": PNG, "1.2.840.10008": DICOM, "s.jpg_large": JPEG, "t": AVIF}
    for name, content in contents.items():
        (root / "benign" / name).write_bytes(content)
    others = {"LICENSE": b"text", "notes.txt": JPEG, "t.csv": b"a,b\n", "empty": b""}
    for name, content in others.items():
        (root / name).write_bytes(content)
    left = "._a.jpg|benign/._b.jpg|.DS_Store|Thumbs.db|desktop.ini|.hidden.jpg|~$a.jpg"
    left += "|__MACOSX/benign/._a.jpg|__MACOSX/x.jpg|benign/@eaDir/a.jpg/thumb.jpg|.cache/x.png"
    touch(root, *left.split("|"))
    os.mkfifo(root / "pipe")  # opening it would never end
    passed_over: Counter[str] = Counter()
    walked = [path.relative_to(root).as_posix() for path in walk_images(root, passed_over)]
    assert sorted(walked) == sorted([*images, *(f"benign/{name}" for name in contents)])
    assert passed_over == {
        **{"._*": 2, ".DS_Store": 1, "Thumbs.db": 1, "desktop.ini": 1, "~$*": 1},
        **{"hidden files": 2, "__MACOSX/": 2, "@eaDir/": 1},
    }
    own = OwnDataset.model_validate({"name": "clinic", "folder": "clinic"})
    (dataset,), _ = discover(tmp_path, ["clinic"], [own])
    records = list(dataset.source.read(dataset.root))
    assert Counter(record.facts.label for record in records) == {"benign": 21}
    assert len({record.original_id for record in records}) == 21
    touch(root, "malignant/x.HEIC", "malignant/x.jp2", "malignant/x.jpg")
    beside = [r for r in dataset.source.read(dataset.root) if r.facts.label == "malignant"]
    assert {r.original_id: Path(r.path or "").suffix for r in beside} == {
        "malignant/x": ".jpg",
        "malignant/x.HEIC": ".HEIC",
        "malignant/x.jp2": ".jp2",
    }
    assert "benign/1.2.840.10008" in {record.original_id for record in records}
