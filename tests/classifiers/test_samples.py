"""Images for training: the right pixels, decoded once, whatever happens to the cache."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
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
        pq.write_table(pa.Table.from_pylist(rows, table.SCHEMA), shard)


def test_pixels_are_those_of_the_pictures_in_the_wanted_order_and_size(workspace) -> None:
    wanted = ["toy/train-0041", "toy/train-0003", "toy/train-0040"]
    encoded = dict(table.images(paths.CORPUS, wanted))
    for side in (toy.SIDE, 20):
        found = load(wanted, side)
        assert found.labels.tolist() == [1, 0, 1]
        for name, pixels in zip(wanted, found.pixels, strict=True):
            picture = Image.open(io.BytesIO(encoded[name]))
            resized = picture.resize((side, side), Image.Resampling.BICUBIC)
            assert np.array_equal(pixels, np.asarray(resized))
        entries = TensorCache(pixel_cache.cache_folder(side))
        assert len(entries) == 3, "only wanted images are decoded"


def test_what_was_decoded_is_never_opened_again(workspace) -> None:
    first = load()
    rewritten(image={"bytes": b"poison", "path": None})
    assert load().digest() == first.digest()
    with pytest.raises(InputError, match="train-0000 of corpus has other bytes than its sha256"):
        load(side=20)


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_entry_is_decoded_again(workspace, capsys, damage) -> None:
    first = load()
    (shard,) = pixel_cache.cache_folder(toy.SIDE).glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content if damage == "flipped" else content[:-100])
    assert load().digest() == first.digest()
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


def test_pictures_that_cannot_be_used_are_named(workspace) -> None:
    rows = table.metadata(paths.CORPUS, split="train")
    alien = rows.assign(image_id="toy/elsewhere")[:1]
    with pytest.raises(InputError, match="lacks 1 of 1 wanted images of split train such as toy/e"):
        samples.load(paths.CORPUS, alien, ["toy/elsewhere"], "train", toy.SIDE)
    rewritten(image={"bytes": b"poison", "path": None}, sha256=sha256(b"poison"))
    with pytest.raises(InputError, match="train-0000 of corpus cannot be decoded"):
        load()
