from __future__ import annotations

import io
from pathlib import Path

import joblib
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dermaflux import paths, table
from dermaflux.captions import caption
from dermaflux.corpus.phantom import draw, render
from dermaflux.errors import InputError
from dermaflux.parameter_file import load
from dermaflux.params import Params

ROOT = Path(__file__).parents[2]


def _params(captioner: str) -> Params:
    params = load(ROOT / "params.yaml")
    return params.model_copy(
        update={"caption": params.caption.model_copy(update={"captioner": captioner})}
    )


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def rows():
        for index in range(40):
            lesion = draw(index, "test-caption-stage")
            encoded = io.BytesIO()
            Image.fromarray(render(lesion, 128, 160)).save(encoded, "JPEG", quality=95)
            yield {
                "image": {"bytes": encoded.getvalue(), "path": None},
                "image_id": f"phantom/{index:03d}",
                "label": lesion.label,
                "split": table.SPLITS[index % 3],
            }

    table.write(rows(), paths.CORPUS, 64)
    return tmp_path


def _written() -> bytes:
    (shard,) = table.shards(paths.CAPTIONS)
    assert shard.name == "captions-00000-of-00001.parquet"
    return shard.read_bytes()


def test_every_image_gets_one_caption_whatever_the_number_of_workers(corpus, monkeypatch):
    caption.run(_params("measured"))
    first = _written()
    written = pq.read_table(table.shards(paths.CAPTIONS)[0])
    assert written.schema.equals(caption.SCHEMA)
    rows = written.to_pylist()
    expected = table.metadata(paths.CORPUS, ["image_id", "label"])
    assert [row["image_id"] for row in rows] == list(expected["image_id"])
    assert [row["label"] for row in rows] == list(expected["label"])
    assert all(row["captioner"] == "measured" for row in rows)
    assert all(f"a {row['label']} lesion." in row["caption"] for row in rows)
    labels = dict(zip(expected["image_id"], expected["label"], strict=True))
    assert list(caption.rows(paths.CORPUS, labels, "measured", jobs=1)) == rows
    with joblib.parallel_config(backend="threading"):
        caption.run(_params("measured"))
    assert _written() == first


def test_label_captioner_writes_the_papers_sentence_and_no_numbers(corpus):
    caption.run(_params("label"))
    rows = pq.read_table(table.shards(paths.CAPTIONS)[0]).to_pylist()
    assert len(rows) == 40
    for row in rows:
        assert row["caption"] == f"This is an image containing a {row['label']} lesion."
        assert row["asymmetry"] is row["colours"] is row["diameter_fraction"] is None


@pytest.mark.parametrize("captioner", ["llama", "visual_attributes"])
def test_a_captioner_that_is_not_built_is_refused_in_one_sentence(corpus, captioner):
    with pytest.raises(InputError, match=f"{captioner}.*use 'measured' or 'label'"):
        caption.run(_params(captioner))
    assert not paths.CAPTIONS.exists()
