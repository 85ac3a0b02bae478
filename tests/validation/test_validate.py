from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from dermaflux import paths
from dermaflux.captions.caption import SCHEMA as CAPTION_SCHEMA
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.params.load import load
from dermaflux.validation import caption_suite, checks, corpus_suite, validate

ROOT = Path(__file__).parents[2]
Rows = list[dict[str, Any]]


def _tables() -> tuple[Rows, Rows]:
    corpus, captions = [], []
    for index in range(60):
        image_id = f"isic2019/ISIC_{index:07d}"
        label = "malignant" if index % 10 < 3 else "benign"
        corpus.append(
            {
                "image": {"bytes": b"never decoded", "path": None},
                "image_id": image_id,
                "source": "isic2019" if index % 2 else "ddi",
                "licence": ("CC0", "CC-BY-NC")[index % 2],
                "skin_tone": ("II", "V-VI", None)[index % 3],
                "skin_tone_origin": ("published", "measured", None)[index % 3],
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
    table.write_shard(captions, paths.CAPTIONS / table.shard_name("captions", 0, 1), CAPTION_SCHEMA)


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
    assert tuple(CAPTION_SCHEMA.names) == caption_suite.COLUMNS


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
    link = '<a href="validations/corpus/validate/latest/tables-corpus.html">'
    assert f"{link}corpus: every expectation holds</a>" in index
    validate.run(params)
    assert _bytes(paths.REPORTS) == first


def _set(rows: Rows, indices: list[int], **values: Any) -> list[str]:
    for index in indices:
        rows[index] |= values
    return [rows[index]["image_id"] for index in indices]


BROKEN: dict[str, Callable[[Rows, Rows], list[str]]] = {
    "unique ids": lambda corpus, _: _set(corpus, [7, 8], image_id="isic2019/twice"),
    "lesion in one split": lambda corpus, _: _set(corpus, [19, 41], lesion_id="one lesion"),
    "patient in one split": lambda corpus, _: _set(corpus, [19, 21], patient_id="one patient"),
    "duplicate group in one split": lambda corpus, _: _set(
        corpus, [25, 45], duplicate_group="one group"
    ),
    "scale vocabulary": lambda corpus, _: _set(corpus, [3], scale=64),
    "scale consistency": lambda corpus, _: _set(corpus, [3, 4], scale=512),
    "minimum side": lambda corpus, _: _set(corpus, [9], height=90, scale=128),
    "licence present": lambda corpus, _: _set(corpus, [12], licence=None),
    "licence vocabulary": lambda corpus, _: _set(corpus, [13], licence="CC BY-NC 4.0"),
    "skin tone vocabulary": lambda corpus, _: _set(corpus, [14, 15], skin_tone="12"),
    "skin tone origin": lambda corpus, _: [
        *_set(corpus, [3], skin_tone_origin=None),
        *_set(corpus, [5], skin_tone_origin="published"),
        *_set(corpus, [6], skin_tone="II", skin_tone_origin="measured"),
    ],
    "label vocabulary": lambda corpus, captions: (
        _set(captions, [11], label="unclear") and _set(corpus, [11], label="unclear")
    ),
    "source present": lambda corpus, _: _set(corpus, [12], source=None),
    "one caption per image": lambda corpus, captions: [captions.pop(30)["image_id"]],
    "one image per caption": lambda corpus, captions: [corpus.pop(30)["image_id"]],
    "label of the image": lambda corpus, captions: _set(captions, [5], label="malignant"),
    "caption length": lambda corpus, captions: _set(captions, [6], caption="Too short."),
    "caption fault refusal": lambda _, captions: _set(captions, [4, 9], flags="refusal,no border"),
    "flag vocabulary": lambda _, captions: _set(captions, [4], flags="ugly"),
    "range of asymmetry": lambda corpus, captions: _set(captions, [6], asymmetry=1.5),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_failed_check_is_named_with_its_rows(name, params):
    corpus, captions = _tables()
    rows = BROKEN[name](corpus, captions)
    _write(corpus, captions)
    with pytest.raises(InputError) as raised:
        validate.run(params)
    report = json.loads(paths.VALIDATION_REPORT.read_text())
    assert report["success"] is False
    failed = {failure["name"]: failure for failure in report["failed"]}
    assert set(rows) == set(failed[name]["examples"])
    assert repr(report["failed"][0]["name"]) in str(raised.value)
    assert report["failed"][0]["examples"][0] in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (paths.DATA_DOCS / "index.html").exists()


def test_copies_across_images_and_rare_faults_stop_only_above_their_limits(params):
    corpus, captions = _tables()
    for index, row in enumerate(captions):
        row |= {"captioner": "llama", "caption": f"{row['caption']} Seen as number {index}."}
    _set(captions, [3], flags="truncated", caption="cut")
    real = pd.DataFrame(corpus).drop(columns="image")
    suite = caption_suite.checks(params)

    def check(rows: Rows) -> None:
        frame = pd.DataFrame(rows, columns=caption_suite.COLUMNS)
        validate.check("captions", caption_suite.with_derived_columns(frame, real), suite)

    copied = captions[0]["caption"].upper() + "!"
    _set(captions, [1, 2, 4, 5, 6], caption=copied)
    check(captions)  # 6 of 60 share a text, and 1 of 60 is cut: both within the limits
    _set(captions, [7], caption=copied)
    with pytest.raises(InputError, match="'copies across images'.*7 of 60.*also of another image"):
        check(captions)
    # A captioner without a model repeats itself by design.
    check([row | {"captioner": "measured"} for row in captions])


@pytest.mark.parametrize("column", corpus_suite.NEVER_NULL)
def test_a_missing_value_is_named(column, params):
    corpus, captions = _tables()
    _set(corpus, [12], **{column: None})
    frame, presence = _presence_suite(corpus, captions, params)
    with pytest.raises(InputError, match=f"'{column} present'.*fails for 1 of 60 rows"):
        validate.check("corpus", frame, presence)


def _presence_suite(corpus: Rows, captions: Rows, params: Params) -> tuple[pd.DataFrame, list]:
    real = pd.DataFrame([{name: row.get(name) for name in table.METADATA} for row in corpus])
    frame = corpus_suite.with_derived_columns(real, pd.DataFrame(captions))
    suite = corpus_suite.checks(params, real)
    return frame, [check for check in suite if check.name.endswith(" present")]


def test_balance_empty_split_and_missing_column_are_named(params):
    corpus, captions = _tables()
    for row, caption in zip(corpus[40:], captions[40:], strict=True):
        row["label"] = caption["label"] = "benign"
    _write(corpus, captions)
    with pytest.raises(InputError, match="'label balance of test'.* 0.0 observed"):
        validate.run(params)
    corpus, captions = _tables()
    _write(corpus[:40], captions[:40])
    with pytest.raises(
        InputError, match="'split vocabulary'.*test_fraction is set, fails, with no "
    ):
        validate.run(params)
    for shard in table.shards(paths.CORPUS):
        schema = table.SCHEMA.remove(table.SCHEMA.get_field_index("lesion_id"))
        rows = pq.read_table(shard, columns=schema.names).to_pylist()
        table.write_shard(rows, shard, schema)
    with pytest.raises(InputError, match="'columns' of the corpus suite.*lesion_id"):
        validate.run(params)


def test_balance_of_a_source_is_checked_where_the_corpus_holds_it(params):
    corpus, captions = _tables()
    _write(corpus, captions)
    limits = {"ddi": (0.05, 0.1), "isic2024": (0.0, 0.01)}
    section = params.validate_.model_copy(update={"source_malignant_fraction": limits})
    with pytest.raises(InputError, match="'label balance of ddi'.*with 0.4 observed") as raised:
        validate.run(params.model_copy(update={"validate_": section}))
    assert "more fail" not in str(raised.value)


@pytest.mark.parametrize(
    ("images", "malignant", "passes"),
    [(10, 7, True), (10, 10, False), (10, 0, False), (1000, 640, True), (1000, 700, False)],
)
def test_few_images_may_have_another_share_by_chance_but_both_classes(
    params, images, malignant, passes
):
    """Three standard errors of a share of 0.6 are 0.46 among 10 images, 0.046 among 1,000."""
    limits = {"validation": (0.02, 0.6)}
    section = params.validate_.model_copy(update={"malignant_fraction": limits})
    frame = pd.DataFrame({"split": ["validation"] * images})
    (check,) = corpus_suite.label_balances(params.model_copy(update={"validate_": section}), frame)
    low, high = check.arguments["min_value"], check.arguments["max_value"]
    assert (low <= malignant / images <= high) is passes


def test_licences_asked_for_are_the_only_ones(params):
    _write(*_tables())
    ingest = params.ingest.model_copy(update={"licences": ["CC0", "CC-BY"]})
    with pytest.raises(InputError, match=r"'licence vocabulary'.*30 of 60 rows.*CC-BY-NC"):
        validate.run(params.model_copy(update={"ingest": ingest}))


def test_as_published_enlarges_and_leaks_with_a_warning_but_keeps_one_scale(params, capsys):
    corpus, captions = _tables()
    for row in corpus:
        row["scale"] = 512 if row["source"] == "isic2019" else 256
    _set(corpus, [3], height=64)
    _set(corpus, [19, 41], lesion_id="one lesion")
    _write(corpus, captions)
    ingest = params.ingest.model_copy(update={"policy": "as_published"})
    published = params.model_copy(update={"ingest": ingest})
    validate.run(published)
    report = json.loads(paths.VALIDATION_REPORT.read_text())
    assert report["success"] is True
    warnings = {warning["name"]: warning["rows"] for warning in report["warnings"]}
    assert warnings == {"minimum side": 1, "lesion in one split": 2}
    assert "warning: expectation 'lesion in one split'" in capsys.readouterr().out
    _set(corpus, [3], scale=128)
    _write(corpus, captions)
    with pytest.raises(InputError, match="'scale consistency'.*its dataset has scale 512"):
        validate.run(published)


def _splits_slowly(corpus: pd.DataFrame, column: str) -> list[str | None]:
    members: dict[str, set[str]] = {}
    for key, split in zip(corpus[column], corpus["split"], strict=True):
        members.setdefault(key, set()).add(split)
    return [None if pd.isna(key) else " and ".join(sorted(members[key])) for key in corpus[column]]


def test_splits_of_groups_are_those_of_a_plain_loop():
    draw = random.Random(5)
    frame = pd.DataFrame(
        {
            "group": [draw.choice(["a", "b", "c", "d", "e", None]) for _ in range(200)],
            "split": [draw.choice(table.SPLITS) for _ in range(200)],
        }
    )
    frame.loc[frame["group"] == "e", "split"] = "test"
    splits = checks.splits_of_groups(frame, "group")
    assert [None if pd.isna(text) else text for text in splits] == _splits_slowly(frame, "group")
    assert {"test", "test and train and validation"} <= set(splits.dropna())
    alone = frame.assign(group=pd.Series([None] * len(frame), dtype="str"))
    assert checks.splits_of_groups(alone, "group").isna().all()
