"""Texts that people hand in, mutated: one sentence, or every row where it belongs.

CSV files with images, captions of other programs, prompts, questions, parameters, grids and rows of
the leaderboard. `make attack` tries sixty times as many.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import answered, mutated

from dermaflux.captions.imported import match
from dermaflux.captions.text import prompt_file, quality
from dermaflux.captions.vlm import questions
from dermaflux.core import vocabulary
from dermaflux.errors import InputError, one_line, quoted
from dermaflux.params import OwnDataset, load
from dermaflux.sources.adapter import Record
from dermaflux.sources.reading import csv_table
from dermaflux.sweeps import grid
from dermaflux.sweeps.leaderboard import submissions

ROOT = Path(__file__).parents[2]
IMAGES = ("a.jpg", "b.jpg", "sub/c.png")
OWN = OwnDataset.model_validate(
    {
        "name": "clinic",
        "folder": "ours",
        "csv": "t.csv",
        "columns": {"image": "file", "label": "dx", "patient_id": "who", "split": "part"},
        "labels": {"naevus": "benign"},
    }
)


def in_file(content: bytes, read: Callable[[Path], Any], name: str = "x.csv") -> Any:
    """What `read` makes of a file with this content, or None for one sentence."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return answered(lambda: read(path))


def own_records(path: Path) -> list[Record]:
    for name in IMAGES:
        image = path.parent / name
        image.parent.mkdir(exist_ok=True)
        image.touch()
    path.rename(path.with_name("t.csv"))
    return list(csv_table.source(OWN).read(path.parent))


TABLES = [
    b"file,dx,who,part\na.jpg,benign,1,train\nb.jpg,naevus,2,test\nc.png,malignant,,\n",
    b'\xef\xbb\xbf"file";"dx";"who";"part"\r\n"a";"benign";"1";""\r\n"b";"Naevus";"0";"val"\r\n',
    "file\tdx\twho\tpart\na\tmalignant\tä\t\n".encode("utf-16"),
    b"sep=|\nfile|dx|who|part\nsub/c|indeterminate|P 1|train\n",
]


@given(mutated(TABLES))
def test_a_table_of_images_loses_no_image(content: bytes) -> None:
    records = in_file(content, own_records)
    if records is None:
        return
    images = [record.path for record in records if record.path]
    assert len(images) == len(set(images)) == len(IMAGES)
    for record in records:
        facts = record.facts
        assert facts.problem or facts.label in vocabulary.LABELS
        assert record.path or facts.problem
        assert not facts.problem or facts.problem.reason.isprintable()


CELL = st.one_of(
    st.text(max_size=12),
    st.sampled_from([*IMAGES, "a", "b", "/x/sub/c.png", "benign", "Naevus", "malignant", "test"]),
)


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), max_size=6), st.sampled_from(",;\t|"))
def test_every_row_is_a_record_and_every_label_the_written_one(
    rows: list[tuple[str, ...]], separator: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL)
    writer.writerows([("file", "dx", "who", "part"), *rows])
    try:
        content = text.getvalue().encode()
    except UnicodeEncodeError:  # half a character, which no file in UTF-8 holds
        return
    records = in_file(content, own_records)
    if records is None:
        return
    assert sum(record.row is not None for record in records) == sum(any(row) for row in rows)
    meant = {"naevus": "benign"} | {label: label for label in vocabulary.LABELS}
    written = {label for row in rows if (label := meant.get(row[1].strip().lower()))}
    assert {r.facts.label for r in records if r.path and not r.facts.problem} <= written


CAPTIONED = ["isic2019/ISIC_0000001", "isic2019/ISIC_0000002", "clinic/ä 1"]
CAPTIONS = {
    "c.json": [
        b'{"ISIC_0000001": "round", "ISIC_0000002.jpg": "jagged and black"}',
        b'[{"image": "ISIC_0000001.jpg", "caption": "round"}, {"image": "x", "caption": ["a"]}]',
        b'{"images": [{"id": 1, "file_name": "ISIC_0000001"}], '
        b'"annotations": [{"image_id": 1, "caption": "a"}]}',
        b'[{"id": "ISIC_0000001", "conversations": [{"from": "human", "value": "<image>\\nsay"}, '
        b'{"from": "gpt", "value": "round"}]}]',
        b'{"image": {"0": "ISIC_0000001"}, "text": {"0": "round"}}',
    ],
    "c.jsonl": [
        b'{"file_name": "ISIC_0000001.jpg", "text": "round"}\n{"file_name": "y", "text": ""}\n',
        b'["ISIC_0000001", "round"]\n["ISIC_0000002", "jagged"]\n',
    ],
    "c.csv": [b'image,caption\nISIC_0000001,"round, brown"\nISIC_0000002,jagged\n', TABLES[0]],
    "c.tsv": ["ISIC_0000001\tround\nclinic/ä 1\tflat\n".encode()],
    "ISIC_0000001.txt": [b"a round mole\n"],
}


@given(st.sampled_from(sorted(CAPTIONS)).flatmap(
    lambda name: st.tuples(st.just(name), mutated(CAPTIONS[name]))
))  # fmt: skip
@example(("c.tsv", b",,\n"))  # a header of no names
def test_captions_of_other_programs(file: tuple[str, bytes]) -> None:
    name, content = file
    found = in_file(content, lambda path: match.read(path, CAPTIONED), name)
    if found is not None:
        assert set(found.captions) <= set(CAPTIONED)
        assert set(found.captions) | set(found.images_without) == set(CAPTIONED)
        for caption in found.captions.values():
            assert caption == " ".join(caption.split())
            caption.encode()  # a table can store it
        assert one_line(found.summary()).isprintable()
        assert all(one_line(note).isprintable() for note in found.notes)


@given(st.text(), st.sampled_from(["json", "jsonl", "csv"]))
def test_any_caption_arrives_word_for_word(text: str, form: str) -> None:
    rows = {CAPTIONED[0]: text, CAPTIONED[1]: "A round mole with a smooth border."}
    records = [{"image": image, "caption": caption} for image, caption in rows.items()]
    if form == "csv":
        table = io.StringIO()
        csv.writer(table, quoting=csv.QUOTE_ALL).writerows([("image", "caption"), *rows.items()])
        content = table.getvalue()
    elif form == "json":
        content = json.dumps(records)
    else:
        content = "\n".join(map(json.dumps, records))
    found = in_file(
        content.encode(errors="surrogatepass"),
        lambda path: match.read(path, CAPTIONED),
        f"c.{form}",
    )
    if found is not None:
        assert found.captions == {
            image: " ".join(caption.split()) for image, caption in rows.items()
        }
    else:
        assert "\x00" in text or any("\ud800" <= sign <= "\udfff" for sign in text)


@given(st.text(), st.sampled_from(["benign", "malignant", None]))
def test_the_quality_gate_judges_any_text(text: str, label: str | None) -> None:
    assert set(quality.faults(text, label)) <= set(quality.FAULTS)
    quality.normalised(text)


PROMPTS = [
    b'prompt,label,diagnosis\n"small, round",benign,nevus\nlarge,malignant,melanoma\n',
    b"\xef\xbb\xbfdiagnosis,prompt\r\nnaevus,small\r\nmelanoma,large\r\n",
]


@given(mutated(PROMPTS))
def test_a_bank_of_prompts(content: bytes) -> None:
    prompts = in_file(content, prompt_file.read)
    for prompt in prompts or ():
        assert prompt.text == " ".join(prompt.text.split()) != ""
        assert prompt.label in (None, "benign", "malignant")
    if prompts:
        known = {"nevus": {"benign"}, "melanoma": {"malignant"}}
        answered(
            lambda: prompt_file.bank(prompts, "label", ("benign", "malignant"), known, Path("x"))
        )


QUESTIONS = [
    (ROOT / "prompts" / f"{name}.yaml").read_bytes() for name in ("dermoscopy", "chest-xray")
]


@given(mutated(QUESTIONS))
def test_questions_of_a_modality(content: bytes) -> None:
    asked = in_file(content, questions.read, "q.yaml")
    if asked is not None:
        assert asked.class_sentence("benign")


@given(mutated([(ROOT / "params.yaml").read_bytes(), (ROOT / "profiles/paper.yaml").read_bytes()]))
def test_a_parameter_file(content: bytes) -> None:
    in_file(content, load.load, "params.yaml")


GRIDS = [path.read_bytes() for path in sorted((ROOT / "grids").glob("*.yaml"))]


@given(mutated(GRIDS))
def test_a_grid(content: bytes) -> None:
    def read(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(path.parents[1])
            grid.runs("g", grid.load("g"))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grids" / "g.yaml"
        path.parent.mkdir()
        path.write_bytes(content)
        answered(lambda: read(path))


def board() -> dict[str, Any]:
    from dermaflux.sweeps.leaderboard import schema

    interval = {"value": 0.1, "low": 0.0, "high": None}
    entry = {
        "pool": "mine", "state": "measured", "reason": "", "generator": "released", "licence": "x",
        "url": "https://example.org", "pool_hash": "", "images": 9, "memorised": 1, "kid": None,
        "images_per_second": None, "device": "", "comparisons": 1,
        "results": [{
            "architecture": "vit", "seeds": 2, "rate": interval | {"bound": ""}, "why_no_rate": "",
            "gain": interval | {"p": 0.5}, "detectable": None, "rank": None,
        }],
    }  # fmt: skip
    parameters = {"n_real": 100, "ratio": 4.0}
    return {
        "schema": schema.VERSION, "grid": "g", "dermaflux": "0.1", "commit": "",
        "protocol": {"hash": schema.digest(parameters), "parameters": parameters},  # type: ignore[arg-type]
        "test": {"hash": "0" * 64, "images": 10, "malignant": 5}, "real": 100, "synthetic": 400,
        "sizes": [{"architecture": "vit", "images": n, "auc": 0.7} for n in (50, 100, 200, 900)],
        "ceilings": {}, "confidence": 0.95, "joint_confidence": 0.9,
        "entries": [entry],
    }  # fmt: skip


BOARD = [json.dumps(board(), indent=1).encode()]


def test_the_whole_files_are_accepted() -> None:
    """Otherwise the mutations would show nothing but refusals."""
    assert in_file(BOARD[0], submissions.read, "b.json") is not None
    for content in QUESTIONS:
        assert in_file(content, questions.read, "q.yaml") is not None
    for content in PROMPTS:
        assert in_file(content, prompt_file.read) is not None
    for content in TABLES:
        assert in_file(content, own_records) is not None
    for name, contents in CAPTIONS.items():
        found = [in_file(c, lambda path: match.read(path, CAPTIONED), name) for c in contents]
        assert [f for f in found if f is not None]


@given(mutated(BOARD))
def test_a_submission_to_the_leaderboard(content: bytes) -> None:
    entries = in_file(content, submissions.read, "b.json")
    if entries is not None:
        assert quoted(entries.entries[0].pool).isprintable()


def test_the_sentences_are_of_input_errors() -> None:
    with pytest.raises(AssertionError, match="no fix"):
        answered(lambda: (_ for _ in ()).throw(InputError("it is wrong and nobody says why")))
