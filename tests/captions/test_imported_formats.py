"""Captions as other people's tools write them: each gives the same texts, or one sentence."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermaflux.captions.imported.match import read
from dermaflux.captions.text.quality import faults
from dermaflux.errors import InputError

IMAGES = ["own/a/IMG_000", "own/a/IMG_001", "own/b/Läsion 2", "own/b/007"]
TEXTS = {
    "IMG_000": 'The lesion, 5 mm, is symmetrical; its border is "smooth" and its colour brown.',
    "IMG_001": "The lesion is asymmetrical, its border jagged, its colour “black”.",
}
CAPTIONS = {f"own/a/{name}": text for name, text in TEXTS.items()}
ASKED = "<image>\nDescribe the lesion, its border and its colour in one sentence."


def lines(records: list[object]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def turns(key: str, who: str, asker: str, answerer: str, what: str) -> list[dict]:
    return [
        {"id": f"{number}", key: f"train/{name}.jpg", **{what: [
            {who[0]: asker, who[1]: ASKED}, {who[0]: answerer, who[1]: text},
        ]}}
        for number, (name, text) in enumerate(TEXTS.items())
    ]  # fmt: skip


def chat(name: str, text: str, in_question: bool) -> dict:
    url = f"https://example.org/photos/{name}.jpg?size=2"
    shown = {"type": "image_url", "image_url": {"url": url}}
    asked = [{"type": "text", "text": ASKED}, *([shown] if in_question else [])]
    answer = text if in_question else [{"type": "text", "text": text}]
    record = {
        "messages": [
            {"role": "system", "content": "You are a dermatologist who describes images."},
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answer},
        ]
    }
    return record if in_question else {**record, "metadata": {"image_id": name}}


def batch_answer(name: str, text: str) -> dict:
    message = {"role": "assistant", "content": text}
    body = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": message}]}
    return {"id": "batch_1", "custom_id": name, "response": {"status_code": 200, "body": body}}


def quoted_table(delimiter: str, header: str = "image_id,caption") -> str:
    rows = [(name, '"' + text.replace('"', '""') + '"') for name, text in TEXTS.items()]
    cells = [header.split(","), *rows]
    return "".join(delimiter.join(row) + "\n" for row in cells)


def coco() -> dict:
    return {
        "images": [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(TEXTS)],
        "annotations": [
            {"id": 90 + n, "image_id": n, "caption": t} for n, t in enumerate(TEXTS.values())
        ],
    }


FORMATS: dict[str, tuple[str, str | bytes]] = {
    "LLaVA": ("c.json", json.dumps(
        turns("image", ("from", "value"), "human", "gpt", "conversations"))),
    "ShareGPT lines": ("c.jsonl", lines(
        turns("images", ("role", "content"), "user", "assistant", "messages"))),
    "chat, image in the question": ("c.jsonl", lines([chat(*x, True) for x in TEXTS.items()])),
    "chat, image in metadata": ("c.jsonl", lines([chat(*x, False) for x in TEXTS.items()])),
    "Qwen, image in the question": ("c.json", json.dumps([
        {"id": "identity_0", "conversations": [
            {"from": "user", "value": f"Picture 1: <img>data/{n}.jpg</img>\nDescribe it."},
            {"from": "assistant", "value": t}]} for n, t in TEXTS.items()])),
    "batch answers": ("c.jsonl", lines([batch_answer(*x) for x in TEXTS.items()])),
    "COCO": ("captions_train.json", json.dumps(coco())),
    "Hugging Face": ("metadata.jsonl", lines(
        [{"file_name": f"train/{n}.png", "text": t, "label": 1} for n, t in TEXTS.items()])),
    "lines called JSON": ("c.json", lines([{"image": n, "text": t} for n, t in TEXTS.items()])),
    "list called lines": ("c.jsonl", json.dumps(
        [{"image": n, "text": t} for n, t in TEXTS.items()], indent=1)),
    "kohya's meta": ("meta_cap.json", json.dumps(
        {f"/data/{n}.png": {"caption": t, "tags": "lesion"} for n, t in TEXTS.items()})),
    "CSV, other columns": ("c.csv", quoted_table(",", "File Name,Image Caption")),
    "semicolons": ("c.csv", "sep=;\n" + quoted_table(";")),
    "tabs": ("c.tsv", quoted_table("\t", "image,description")),
    "tabs without a header": ("captions.txt", quoted_table("\t").split("\n", 1)[1]),
    "unquoted comma": ("c.csv", "image,caption\n" + "".join(
        f"{n},{t}\n" for n, t in TEXTS.items()).replace('"', "")),
    "UTF-16": ("c.csv", quoted_table("\t").encode("utf-16")),
    "UTF-16 without mark": ("c.jsonl", lines([[*x] for x in TEXTS.items()]).encode("utf-16-le")),
    "Windows-1252": ("c.csv", quoted_table(";").encode("cp1252")),
    "Windows-1252 JSON": ("c.json", json.dumps(TEXTS, ensure_ascii=False).encode("cp1252")),
    "returns only": ("c.csv", quoted_table(",").replace("\n", "\r")),
    "empty fields at the end": ("c.csv", quoted_table(";").replace("\n", ";;;\n")),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_every_word(kind, tmp_path) -> None:
    name, content = FORMATS[kind]
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    plain = {i: t.replace('"', "") if kind == "unquoted comma" else t for i, t in CAPTIONS.items()}
    match = read(file, IMAGES)
    assert match.captions == plain
    assert match.captions_without == []
    assert bool(match.notes) == kind.startswith("Windows-1252")


@pytest.mark.parametrize("nested", [False, True])
def test_parquet_with_images_inside(tmp_path, nested) -> None:
    image = [{"bytes": b"\xff\xd8", "path": f"{name}.jpg"} for name in TEXTS]
    table = {"image": image, "n": [1, 2], "text": list(TEXTS.values())}
    if nested:
        table = {"image": [f"x/{name}.jpg" for name in TEXTS], "messages": [
            [{"role": "user", "content": ASKED}, {"role": "assistant", "content": text}]
            for text in TEXTS.values()
        ]}  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "train-00000-of-00001.parquet")
    assert read(tmp_path, IMAGES).captions == CAPTIONS


@pytest.mark.parametrize("suffix", [".txt", ".caption", ".jpg.txt", ".json"])
def test_a_text_per_image_beside_a_table_of_labels(tmp_path, suffix) -> None:
    for name, text in TEXTS.items():
        content = json.dumps({"caption": text, "width": 64}) if suffix == ".json" else text
        path = tmp_path / "10_lesion" / "a" / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    (tmp_path / "10_lesion" / "a" / "IMG_000.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "IMG_000.txt").write_text("Not a caption.")
    (tmp_path / "README.txt").write_text("These are captions.\nImages are elsewhere.\n")
    if suffix != ".json":
        (tmp_path / "labels.csv").write_text("image,label\nIMG_000,benign\nIMG_001,malignant\n")
    match = read(tmp_path, IMAGES)
    assert match.captions == CAPTIONS
    assert ["labels.csv" in note for note in match.notes] == [True] * (suffix != ".json")


def test_short_and_foreign_captions_are_read_and_left_to_the_quality_gate(tmp_path) -> None:
    for text, fault in (("这是一个良性病变，边界清晰。", "not English"), ("nevus", "truncated")):
        for content in (
            json.dumps({"IMG_000": text, "IMG_001": text}, ensure_ascii=False),
            json.dumps([{"image": "IMG_000", "caption": text}], ensure_ascii=False),
        ):
            (tmp_path / "c.json").write_text(content, encoding="utf-8")
            assert read(tmp_path / "c.json", IMAGES).captions[IMAGES[0]] == text
        assert fault in faults(text, "benign")


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("D:\\fotos\\a\\img_000.JPG", IMAGES[0]),
        ("file:///data/IMG_000.jpeg", IMAGES[0]),
        (unicodedata.normalize("NFD", "b/LÄSION 2.png"), IMAGES[2]),
        ("7", IMAGES[3]),
        ("7.0", IMAGES[3]),
        ("IMG_00", None),
        ("70", None),
    ],
)
def test_names_are_matched_as_those_of_images(tmp_path, name, image) -> None:
    content = [{"image": "a/IMG_001", "caption": "A text."}, {"image": name, "caption": "Another."}]
    (tmp_path / "c.json").write_text(json.dumps(content))
    match = read(tmp_path / "c.json", IMAGES)
    assert match.captions.get(image) == (None if image is None else "Another.")
    assert match.captions_without == ([name] if image is None else [])
    assert "images without a caption (such as" in match.summary()


def test_an_exact_name_comes_before_one_in_another_case(tmp_path) -> None:
    content = {"x/img": "Small.", "x/IMG": "Capital.", "IMg": "Neither."}
    (tmp_path / "c.json").write_text(json.dumps(content))
    match = read(tmp_path / "c.json", ["own/x/img", "own/x/IMG"])
    assert match.captions == {"own/x/img": "Small.", "own/x/IMG": "Capital."}
    assert match.ambiguous == ["IMg"]


ROUND = "The lesion, 5 mm, is round."
LONG = "The mole is round, smooth and brown."
BAD = {
    "a column too many": ("c.csv", f"image,label,caption\nIMG_000,benign,{LONG}\n",
                          "4 fields at line 2 and 3 in its header; enclose"),
    "caption first": ("c.csv", f"caption,image,label\n{LONG},IMG_000,benign\n", "4 fields at line"),
    "line break": ("c.csv", "image,caption\nIMG_000,The mole is\nround.\n", "1 fields at line 3"),
    "quote left open": ("c.csv", f'image,caption\nIMG_000,"{LONG}\nIMG_001,{LONG}\n', "at line 2"),
    "two captions": ("c.csv", "image,caption\nIMG_000,One.\nIMG_000.jpg,Two.\n",
                     "one caption at line 2 of 'c.csv' and another at line 3"),
    "one key twice": ("c.json", '{"IMG_000": "One.", "IMG_000": "Two."}', "'IMG_000' is there tw"),
    "cut line": ("c.jsonl", lines([{"image": "IMG_000", "text": LONG}]) + '{"image": "I', "line 2"),
    "cut list": ("c.json", '[{"image": "IMG_000", "text": "One."},', "cannot be read at line 1"),
    "two arrays": ("c.jsonl", '[\n{"image": "IMG_000", "text": "One."}\n]\n[1,\n2]\n', "at line"),
    "deep": ("c.json", "[" * 100_000, "nested too deeply"),
    "two texts": ("c.csv", f'image,text,description\nIMG_000,"{LONG}","Not so: {LONG}"\n',
                  "2 fields that could be the caption, 'text', 'description'; rename"),
    "no text": ("c.csv", "image,diagnosis\nIMG_000,nevus\n", "could be the text .* 'diagnosis'"),
    "column twice": ("c.csv", "image,caption,caption\nIMG_000,One.,Two.\n", "more than one column"),
    "one column": ("c.csv", f"caption\n{LONG.replace(',', '')}\n", "one column, 'caption'"),
    "no header": ("c.csv", "IMG_000,benign,One.\n", "no header and 3 columns"),
    "Chinese code page": ("c.csv", "image,caption\nIMG_000,这是一个良性病变\n".encode("gbk"),
                          "neither UTF-8, UTF-16 nor Windows-1252"),
    "Excel": ("c.xlsx", "PK", r"\(\.parquet\).*: export it as CSV"),
    "archive": ("c.zip", "PK", "unpack it and name its folder"),
    "no Parquet": ("c.parquet", "PAR1", "cannot be read as Parquet"),
    "number": ("c.json", json.dumps([{"image": "IMG_000", "caption": 5},
                                     {"image": "IMG_001", "caption": LONG}]), "at record 1 5 as"),
    "object": ("c.json", json.dumps([{"image": "IMG_000", "caption": LONG},
                                     {"image": "IMG_001", "caption": {"en": LONG}}]), "record 2"),
    "half a character": ("c.json", '{"IMG_000": "A mole \\ud800 here."}', "half a character"),
    "endless text": ("c.csv", f'image,caption\nIMG_000,"{LONG * 4_000}', "more than 131,072 char"),
    "other images": ("c.json", json.dumps({"photo\n1": LONG}), r"like 'photo\\n1', the corpus's"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_would_lose_words_is_one_sentence(kind, tmp_path) -> None:
    name, content, message = BAD[kind]
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as raised:
        read(file, IMAGES)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1_000


def test_a_folder_without_captions_says_which_formats_are_read(tmp_path) -> None:
    (tmp_path / "IMG_000.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(InputError, match=r"JSON Lines.*Parquet.*one \.txt or \.caption file per"):
        read(tmp_path, IMAGES)


def test_a_table_of_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": list(TEXTS), "caption": list(TEXTS.values())})
    frame.to_csv(tmp_path / "c.csv")
    assert read(tmp_path / "c.csv", IMAGES).captions == CAPTIONS


UNUSUAL = {
    "caption first": ("c.csv", 'caption,image\nThe lesion, 5 mm, is round.,IMG_000\n'),
    "nameless columns": ("c.csv", "image,caption,,\nIMG_000,The lesion, 5 mm, is round.\n"),
    "names that change": ("c.jsonl", lines([{"image_id": "IMG_001", "caption": "Another lesion."},
                                            {"file_name": "IMG_000.jpg", "text": ROUND}])),
    "pandas": ("c.json", pd.DataFrame({"image": ["IMG_000"], "caption": [ROUND]}).to_json()),
    "pandas, split": ("c.json", json.dumps({"columns": ["image", "caption"], "index": [0],
                                            "data": [["IMG_000", ROUND]]})),
    "datasets": ("c.json", json.dumps({"image_id": ["IMG_000"], "caption": [ROUND]})),
    "COCO with texts as numbers": ("c.json", json.dumps({
        "images": [{"id": 7, "file_name": "IMG_000.jpg"}],
        "annotations": [{"image_id": "7", "caption": ROUND}]})),
    "COCO without its image": ("c.json", json.dumps({
        "images": [{"id": 1, "file_name": "IMG_000.jpg"}],
        "annotations": [{"image_id": 1, "caption": ROUND}, {"image_id": 7, "caption": "No."}]})),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_tables_keep_every_word_at_its_image(kind, tmp_path) -> None:
    name, content = UNUSUAL[kind]
    (tmp_path / name).write_text(content)
    captions = read(tmp_path / name, IMAGES).captions
    assert captions["own/a/IMG_000"] == ROUND
    assert "own/b/007" not in captions
