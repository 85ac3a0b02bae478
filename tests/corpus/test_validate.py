from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermaflux import paths, table
from dermaflux.captions.caption import SCHEMA as CAPTION_SCHEMA
from dermaflux.corpus import expectations, validate
from dermaflux.errors import InputError
from dermaflux.parameter_file import load
from dermaflux.params import Params

ROOT = Path(__file__).parents[2]
Rows = list[dict[str, Any]]


def _tables() -> tuple[Rows, Rows]:
    corpus, captions = [], []
    for index in range(60):
        image_id = f"isic2019/ISIC_{index:07d}"
        label = "malignant" if index % 10 < 3 else "benign"
        corpus.append(
            {
                "image": {"bytes": b"not looked at", "path": None},
                "image_id": image_id,
                "source": "isic2019",
                "licence": "CC0",
                "label": label,
                "lesion_id": f"lesion-{index}" if index % 4 else None,
                "patient_id": f"patient-{index}" if index % 3 else None,
                "duplicate_group": f"group-{index}",
                "width": 300,
                "height": 260,
                "scale": 256,
                "split": table.SPLITS[index // 20],
                "sha256": f"{index:064x}",
                "phash": f"{index:016x}",
            }
        )
        captions.append(
            {
                "image_id": image_id,
                "caption": f"This is an image containing a {label} lesion. The border is smooth.",
                "captioner": "measured",
                "label": label,
                "asymmetry": 0.1,
                "border_irregularity": 0.05,
                "colours": 2,
                "diameter_fraction": 0.4,
            }
        )
    return corpus, captions


def _write(corpus: Rows, captions: Rows) -> None:
    table.write(corpus, paths.CORPUS, 64)
    paths.CAPTIONS.mkdir(exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist(captions, schema=CAPTION_SCHEMA),
        paths.CAPTIONS / "captions-00000-of-00001.parquet",
    )


@pytest.fixture
def params(tmp_path, monkeypatch) -> Params:
    monkeypatch.chdir(tmp_path)
    return load(ROOT / "params.yaml")


def _bytes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_caption_columns_are_those_of_the_caption_stage():
    assert tuple(CAPTION_SCHEMA.names) == expectations.CAPTION_COLUMNS


def test_good_tables_pass_and_the_site_has_equal_bytes_each_time(params, tmp_path):
    _write(*_tables())
    validate.run(params)
    report = json.loads(paths.VALIDATION_REPORT.read_text())
    assert report["success"] is True
    assert report["failures"] == 0
    assert report["expectations"] == sum(
        suite["expectations"] for suite in report["suites"].values()
    )
    assert report["observed"]["malignant_fraction"] == dict.fromkeys(table.SPLITS, 0.3)
    assert report["observed"]["images"] == 60
    first = _bytes(paths.REPORTS)
    assert "validation/index.html" in first
    assert "validation/validations/corpus/validate/latest/tables-corpus.html" in first
    for page in paths.DATA_DOCS.rglob("*.html"):
        text = page.read_text()
        assert str(tmp_path) not in text
        assert "amazonaws" not in text
        assert "1970" not in text
    index = (paths.DATA_DOCS / "index.html").read_text()
    assert '<a href="validations/corpus/validate/latest/tables-corpus.html">' in index
    validate.run(params)
    assert _bytes(paths.REPORTS) == first


def _set(rows: Rows, places: list[int], **values: Any) -> list[str]:
    for place in places:
        rows[place] |= values
    return [rows[place]["image_id"] for place in places]


BROKEN: dict[str, Callable[[Rows, Rows], list[str]]] = {
    "unique ids": lambda corpus, _: _set(corpus, [7, 8], image_id="isic2019/twice"),
    "lesion in one split": lambda corpus, _: _set(corpus, [19, 41], lesion_id="one lesion"),
    "patient in one split": lambda corpus, _: _set(corpus, [19, 21], patient_id="one patient"),
    "duplicate group in one split": lambda corpus, _: _set(
        corpus, [25, 45], duplicate_group="one group"
    ),
    "scale vocabulary": lambda corpus, _: _set(corpus, [3], scale=64),
    "scale within size": lambda corpus, _: _set(corpus, [3], scale=512),
    "minimum side": lambda corpus, _: _set(corpus, [9], height=90, scale=128),
    "label vocabulary": lambda corpus, captions: (
        _set(captions, [11], label="unclear") and _set(corpus, [11], label="unclear")
    ),
    "source present": lambda corpus, _: _set(corpus, [12], source=None),
    "one caption per image": lambda corpus, captions: [captions.pop(30)["image_id"]],
    "one image per caption": lambda corpus, captions: [corpus.pop(30)["image_id"]],
    "label of the image": lambda corpus, captions: _set(captions, [5], label="malignant"),
    "caption length": lambda corpus, captions: _set(captions, [6], caption="Too short."),
    "range of asymmetry": lambda corpus, captions: _set(captions, [6], asymmetry=1.5),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named_with_its_rows(name, params):
    corpus, captions = _tables()
    rows = BROKEN[name](corpus, captions)
    _write(corpus, captions)
    with pytest.raises(InputError) as raised:
        validate.run(params)
    report = json.loads(paths.VALIDATION_REPORT.read_text())
    assert report["success"] is False
    failed = {one["name"]: one for one in report["failed"]}
    assert set(rows) == set(failed[name]["examples"])
    assert repr(report["failed"][0]["name"]) in str(raised.value)
    assert report["failed"][0]["examples"][0] in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (paths.DATA_DOCS / "index.html").exists()


def test_balance_empty_split_and_missing_column_are_named(params):
    corpus, captions = _tables()
    for row, caption in zip(corpus[40:], captions[40:], strict=True):
        row["label"] = caption["label"] = "benign"
    _write(corpus, captions)
    with pytest.raises(InputError, match="'label balance of test'.* 0.0 found"):
        validate.run(params)
    corpus, captions = _tables()
    _write(corpus[:40], captions[:40])
    with pytest.raises(InputError, match="'split vocabulary'"):
        validate.run(params)
    for shard in table.shards(paths.CORPUS):
        pq.write_table(pq.read_table(shard).drop_columns(["lesion_id"]), shard)
    with pytest.raises(InputError, match="'columns' of the corpus suite.*lesion_id"):
        validate.run(params)


def test_published_scales_may_enlarge(params):
    corpus, captions = _tables()
    _set(corpus, [3], scale=512)
    _write(corpus, captions)
    ingest = params.ingest.model_copy(update={"scale": "published"})
    validate.run(params.model_copy(update={"ingest": ingest}))
