"""Images for training: the right pixels, decoded once, whatever happens to the cache."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import toy_corpus as toy
from PIL import Image

from dermaflux import paths
from dermaflux.classifiers.data import pixel_cache, samples
from dermaflux.core import table
from dermaflux.core.hashing import sha256
from dermaflux.core.tensor_cache import TensorCache
from dermaflux.errors import InputError


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    table.write([*toy.rows("train", "toy", 30, 20, 0)], paths.CORPUS, 64)
    return tmp_path


def load(wanted: list[str] | None = None, side: int = toy.SIDE) -> samples.Samples:
    rows = table.metadata(paths.CORPUS, split="train")
    names = list(rows["image_id"]) if wanted is None else wanted
    return samples.load(paths.CORPUS, rows, names, "train", side)


def rewritten(**changes: object) -> None:
    """Change columns of every row of the corpus."""
    for shard in table.shards(paths.CORPUS):
        rows = [row | changes for row in pq.read_table(shard).to_pylist()]
        table.write_shard(rows, shard)


def test_pixels_are_those_of_the_images_in_the_wanted_order_and_size(workspace) -> None:
    wanted = ["toy/train-0041", "toy/train-0003", "toy/train-0040"]
    encoded = dict(table.images(paths.CORPUS, wanted))
    for side in (toy.SIDE, 20):
        loaded = load(wanted, side)
        assert loaded.labels.tolist() == [1, 0, 1]
        assert loaded.pixels.shape == (3, side, side, 3)
        for name, pixels in zip(wanted, np.asarray(loaded.pixels), strict=True):
            image = Image.open(io.BytesIO(encoded[name]))
            resized = image.resize((side, side), Image.Resampling.BICUBIC)
            assert np.array_equal(pixels, np.asarray(resized))
        entries = TensorCache(pixel_cache.cache_folder(side))
        assert len(entries) == 3, "only wanted images are decoded"


def test_an_index_selects_as_it_does_in_an_array(workspace) -> None:
    loaded = load()
    whole = np.asarray(loaded.pixels)
    indices = np.array([7, 0, 7, 49])
    assert np.array_equal(loaded.pixels[indices], whole[indices])
    assert np.array_equal(loaded.take(indices).pixels[1:], whole[[0, 7, 49]])
    both = samples.concatenate(loaded.part(40, 50), load(["toy/train-0003"]))
    assert np.array_equal(both.pixels, np.concatenate([whole[40:], whole[3:4]]))
    assert both.image_ids[-1] == "toy/train-0003"
    with pytest.raises(TypeError, match="a slice or an array"):
        loaded.pixels[0]
    memory = samples.Samples(loaded.image_ids, loaded.labels, whole)
    assert memory.digest() == loaded.digest()


def test_an_image_that_leaves_the_cache_is_missed_in_one_sentence(workspace) -> None:
    loaded = load()
    for shard in pixel_cache.cache_folder(toy.SIDE).glob("*.safetensors"):
        shard.unlink()
    fresh = TensorCache(pixel_cache.cache_folder(toy.SIDE))
    with pytest.raises(InputError, match="an image left .* run the command again"):
        np.asarray(pixel_cache.CachedPixels(fresh, [b"0" * 32], toy.SIDE))
    again = load(side=toy.SIDE)
    assert again.digest() == loaded.digest(), "what was opened stays mapped"


def test_what_was_decoded_is_never_opened_again(workspace) -> None:
    digest = load().digest()
    rewritten(image={"bytes": b"poison", "path": None})
    assert load().digest() == digest
    with pytest.raises(InputError, match="train-0000' of corpus/.* other bytes than its sha256"):
        load(side=20)


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_entry_is_decoded_again(workspace, capsys, damage) -> None:
    digest = load().digest()
    (shard,) = pixel_cache.cache_folder(toy.SIDE).glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content if damage == "flipped" else content[:-100])
    assert load().digest() == digest
    assert "damaged" in capsys.readouterr().out
    load()
    assert "damaged" not in capsys.readouterr().out


_WORKER = """
import sys
from dermaflux import paths
from dermaflux.classifiers.data import samples
from dermaflux.core import table
rows = table.metadata(paths.CORPUS, split="train")
names = list(rows["image_id"])[int(sys.argv[1]) : int(sys.argv[2])]
print(samples.load(paths.CORPUS, rows, names, "train", 32).digest())
"""


@pytest.mark.slow
def test_workers_that_start_together_decode_each_image_once(workspace) -> None:
    spans = [(0, 40), (10, 50), (0, 50)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, *map(str, span)], stdout=subprocess.PIPE, text=True
        )
        for span in spans
    ]
    printed = [worker.communicate(timeout=120)[0].strip() for worker in workers]
    stored = TensorCache(pixel_cache.cache_folder(toy.SIDE))
    assert len(stored) == 50, "equal entries in two shards would count twice"
    names = list(table.metadata(paths.CORPUS, ["image_id"])["image_id"])
    assert printed == [load(names[first:last]).digest() for first, last in spans]


def test_images_that_cannot_be_used_are_named(workspace) -> None:
    rows = table.metadata(paths.CORPUS, split="train")
    foreign = rows.assign(image_id="toy/elsewhere")[:1]
    with pytest.raises(InputError, match="lacks 1 of 1 wanted images of split train such as toy/e"):
        samples.load(paths.CORPUS, foreign, ["toy/elsewhere"], "train", toy.SIDE)
    rewritten(image={"bytes": b"poison", "path": None}, sha256=sha256(b"poison"))
    with pytest.raises(InputError, match="train-0000 of corpus cannot be decoded"):
        load()
