"""A phantom pool: no lesion of the corpus, its law by counting, and labels that can be permuted."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dermaflux import phantom
from dermaflux.cli import app
from dermaflux.errors import InputError
from dermaflux.generators.released.model import files
from dermaflux.phantom import folder, pool
from dermaflux.phantom.lesion import ATTRIBUTES


def digests(root: Path) -> dict[str, str]:
    """Hash of each image file -> the folder that it lies in."""
    return {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.parent.name
        for path in root.rglob("*")
        if path.suffix in (".jpg", ".png")
    }


def test_lesions_are_in_no_dataset_no_backbone_and_no_other_pool() -> None:
    corpus = [image for layout in folder.layouts().values() for image in layout.images]
    keys = {image.lesion.key for image in corpus}
    keys |= {phantom.draw(index, "backbone").key for index in range(1200)}
    for seed in (0, 1):
        fresh = {image.lesion.key for image in pool.plan(600, seed)}
        assert len(fresh) == 600
        assert fresh.isdisjoint(keys)
        keys |= fresh
    # Pixels follow from the key: not even the same attributes and view make the same photograph.
    twin = {image.lesion: image for image in pool.plan(2)}
    for lesion in twin:
        other = phantom.Lesion(**{**vars(lesion), "key": "corpus/kaggle1/0"})
        assert (phantom.render(lesion, 64, 64) != phantom.render(other, 64, 64)).mean() > 0.5


def test_law_is_that_of_the_corpus_given_the_class() -> None:
    images = pool.plan(12_000, 5)
    for label in ("benign", "malignant"):
        drawn = [image for image in images if image.label == label]
        assert len(drawn) == 6_000
        for name, of in (
            ("asymmetry", lambda x: x.asymmetry),
            ("border", lambda x: x.border),
            ("colours", lambda x: len(x.colours) - 1),
        ):
            counts = Counter(of(image.lesion) for image in drawn)
            percents = ATTRIBUTES[name][label]
            assert [counts[k] / 60 for k in range(len(percents))] == pytest.approx(percents, abs=2)
        training = [
            (image.size, image.quality, image.path[-4:])
            for layout in folder.layouts().values()
            for image in layout.images
            if (image.label, image.damage) == (label, "") and image.split != "test"
            if min(image.size) >= 128
        ]
        looks = Counter((image.size, image.quality, image.path[-4:]) for image in drawn)
        assert looks.keys() <= set(training)
        for look, count in Counter(training).most_common(5):
            assert looks[look] / 6_000 == pytest.approx(count / len(training), abs=0.025)


def test_folder_holds_the_images_of_its_plan_and_shuffling_moves_them_between_classes(
    tmp_path: Path,
) -> None:
    arguments = ["phantom", "--pool", "60", "--seed", "3"]
    for extra, name in (([], "pool"), (["--shuffled"], "shuffled")):
        done = CliRunner().invoke(app, [*arguments, *extra, str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    true, permuted = digests(tmp_path / "pool"), digests(tmp_path / "shuffled")
    assert len(true) == 60
    assert true.keys() == permuted.keys()
    assert Counter(permuted.values()) == Counter(true.values()) == {"benign": 30, "malignant": 30}
    agreeing = sum(permuted[digest] == label for digest, label in true.items())
    assert 15 <= agreeing <= 45  # 30 expected, of standard deviation 3.9
    for name in ("pool", "shuffled"):
        listed, refused, count = files.listing(tmp_path / name)
        assert (len(listed), refused, count) == (60, [], 60)
        with (tmp_path / name / "phantom.csv").open() as file:
            rows = list(csv.DictReader(file))
        moved = sum(row["path"].split("/")[0] != row["label"] for row in rows)
        assert moved == (60 - agreeing if name == "shuffled" else 0)
        facts = json.loads((tmp_path / name / "pool.json").read_text())
        assert facts["labels_shuffled"] == (name == "shuffled")
        assert facts["bayes_auc"] == phantom.bayes_auc()
    planned = next(image for image in pool.plan(60, 3) if image.path.endswith(".png"))
    with Image.open(tmp_path / "pool" / planned.path) as image:
        assert np.array_equal(np.asarray(image), phantom.render(planned.lesion, *planned.size))


@pytest.mark.parametrize("count", [-2, 0, 7, 100_002])
def test_counts_that_make_no_pool_are_refused(count: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"pool of {count} images .* even number from 2 to"):
        pool.write(tmp_path / "new", count)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_kept(tmp_path: Path) -> None:
    for kind in ("folder", "file"):
        place = tmp_path / kind
        if kind == "folder":
            place.mkdir()
            (place / "phantom.json").write_text("a corpus")
        else:
            place.write_text("mine")
        with pytest.raises(InputError, match="name a new folder for the phantom pool"):
            pool.write(place, 2)
    assert (tmp_path / "folder" / "phantom.json").read_text() == "a corpus"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "options", [["--shuffled"], ["--seed", "3"], ["--pool", "2", "--seed", "-1"]]
)
def test_options_that_mean_nothing_are_refused(options: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["phantom", *options, str(tmp_path / "new")])
    assert done.exit_code == 1
    assert isinstance(done.exception, InputError)
    assert not (tmp_path / "new").exists()
