from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dermaflux.errors import InputError
from dermaflux.generators.released.model import files


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("Benign/1.png", {"benign"}),
        ("set/MALIGNANT-3.jpeg", {"malignant"}),
        ("benign_0001.png", {"benign"}),
        ("benign/malignant_1.png", {"benign", "malignant"}),
        ("nonbenign/1.png", set()),  # within a longer word it is no class
        ("malignantly/1.png", set()),
        ("synthetic_benign_0001_seed42.png", {"benign"}),
        ("Malignant Images/flux_malignant_7.png", {"malignant"}),  # the folder confirms it
        ("malignant/melanoma_3.png", {"malignant"}),
        ("benign/melanoma_3.png", {"benign"}),  # as Kaggle names its benign files
        ("malignant/no_flash_3.png", {"malignant"}),
        ("benign/other/3.png", {"benign"}),
        ("pool\\benign\\1.png", {"benign"}),
    ],
)
def test_a_class_is_a_word_of_the_path(path: str, labels: set[str]) -> None:
    assert files.labels_in(path) == labels


DENIED = (
    "non-benign/1.png|no_malignant/1.png|without-malignant/1.png|not malignant/1.png"
    "|pre-malignant/1.png|malignant_excluded/1.png|suspected malignant/1.png|malignant?/1.png"
    "|benign-looking/1.png|malignant-free/1.png|benign_or_malignant/1.png|benign vs malignant/1.png"
    "|benign_flux.png|kein_malignant_3.png|benign_melanoma/1.png|malignant nevus/1.png"
    "|malignant/excluded/1.png|not/malignant/1.png|malignant/premalignant_1.png"
    "|malignant/false_positives/1.png|malignant/negatives/1.png|swapped labels/benign/1.png"
    "|mislabeled/benign/1.png|malignant/not_malignant_1.png|-malignant/1.png|zzz_malignant/1.png"
)


@pytest.mark.parametrize("path", DENIED.split("|"))
def test_a_name_that_may_deny_its_class_gives_none(path: str) -> None:
    assert len(files.labels_in(path)) > 1


def test_every_file_is_listed_once_or_refused_with_a_rule(tmp_path: Path) -> None:
    folder = write(tmp_path, {
        "benign/1.png": b"a", "benign/2.png": b"b", "benign/copy.png": b"a",
        "malignant/3.png": b"c", "benign/both.png": b"d", "malignant/both.png": b"d",
        "other/4.png": b"e", "benign/empty.png": b"", "benign/.hidden.png": b"f",
        ".git/benign.png": b"g", "benign/notes.txt": b"h",
    })  # fmt: skip
    images, refused, count = files.listing(folder)
    assert {(image.name, image.label) for image in images} == {
        ("benign/1.png", "benign"), ("benign/2.png", "benign"), ("malignant/3.png", "malignant"),
    }  # fmt: skip
    rules = Counter(refusal.rule for refusal in refused)
    assert rules == {"duplicate": 2, "ambiguous": 1, "unlabelled": 1, "damaged": 1}
    assert count == len(images) + len(refused) == 8
    assert all(refusal.reason for refusal in refused)


def test_the_digest_is_that_of_names_and_contents_in_any_order(tmp_path: Path) -> None:
    contents = {"benign/1.png": b"a", "malignant/2.png": b"b"}
    images, _, _ = files.listing(write(tmp_path / "one", contents))
    digest = files.digest(images)
    assert files.digest(images[::-1]) == digest
    again, _, _ = files.listing(write(tmp_path / "two", contents))
    assert files.digest(again) == digest
    for change in ({"benign/1.png": b"x"}, {"benign/3.png": b"c"}):
        other, _, _ = files.listing(write(tmp_path / str(len(change)), contents | change))
        assert files.digest(other) != digest


def test_a_folder_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"synthesize\.released\.folder .* does not exist"):
        files.listing(tmp_path / "none")
