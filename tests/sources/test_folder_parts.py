"""What folder names say about the part of the images below them, and which files are masks."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import touch

from dermaflux.params import OwnDataset
from dermaflux.sources import folder
from dermaflux.sources.adapter import Problem
from dermaflux.sources.folder_parts import mask, part_of
from dermaflux.sources.reading import csv_table


def said(path: str) -> str:
    part = part_of(tuple(path.split("/")), "train")
    return part.rule if isinstance(part, Problem) else part


@pytest.mark.parametrize(
    ("part", "paths"),
    [
        (
            "test",
            "test|Test/benign|testing|TEST SET|test_images|Test-Data|Test_Malignant|benign_test"
            "|test1|test_2019|ISIC_test|external_test|holdout|hold-out|held_out|Testdaten"
            "|Testdatensatz|Testbilder|prueba|test/train_like|not_yet_sorted/test|train/test",
        ),
        (
            "train",
            "train|valid|validation|val|dev|train_test_split/train|test_project/train/benign"
            "|benign|contest|latest|attestation|protest 2|eval/train|evaluation of clinic A"
            "|Trainingsdaten|Validierung|entrenamiento",
        ),
        (
            "ambiguous-folder",
            "eval|evaluation|Evaluation set|not_test|non-test|train_test|train+test|pre_test"
            "|test_or_val|train/Test_Malignant",
        ),
    ],
)
def test_a_test_folder_is_known_however_it_is_called(part: str, paths: str) -> None:
    assert {path: said(path) for path in paths.split("|")} == dict.fromkeys(paths.split("|"), part)


@pytest.mark.parametrize(
    ("is_mask", "paths"),
    [
        (
            True,
            "benign/7_mask|benign/7-Mask|a/7_segmentation|7_segmentation_0|7_superpixels|masks/7"
            "|a/segmentation/7|lesion_masks/7|Ground Truth/7|GroundTruth_png/7|x/mask|7_GradCAM",
        ),
        (False, "benign/7|masked/7|damask/7|benign/unmasked_7|mask_clinic/benign/7|segments/7"),
    ],
)
def test_masks_beside_photographs_are_no_photographs(is_mask: bool, paths: str) -> None:
    for path in paths.split("|"):
        *folders, stem = path.split("/")
        assert (mask(folders, stem) is not None) == is_mask, path


def test_both_own_adapters_ask_the_folders(tmp_path: Path) -> None:
    names = ("Test set/benign/1", "eval/benign/2", "train/benign/3", "train/benign/3_mask")
    touch(tmp_path, *(f"{name}.jpg" for name in names))
    (tmp_path / "t.csv").write_text("\n".join(["file,dx", *(f"{name},benign" for name in names)]))
    own = {"name": "clinic", "folder": "ours"}
    table = {"csv": "t.csv", "columns": {"image": "file", "label": "dx"}}
    for adapter, entry, masked in ((folder, own, "mask"), (csv_table, own | table, None)):
        source = adapter.source(OwnDataset.model_validate(entry))
        found = {
            r.original_id: (r.split, r.facts.problem.rule if r.facts.problem else None)
            for r in source.read(tmp_path)
        }
        parts = [("test", None), ("train", "ambiguous-folder"), ("train", None), ("train", masked)]
        assert found == dict(zip(names, parts, strict=True))
