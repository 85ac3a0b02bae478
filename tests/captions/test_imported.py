from __future__ import annotations

import json

import pytest

from dermaflux.captions.imported.match import DATASETS, read
from dermaflux.errors import InputError
from dermaflux.sources.registry import SOURCES

IMAGES = [
    "isic2019/ISIC_0000001",
    "isic2019/ISIC_0000002",
    "padufes20/PAT_1_2_3",
    "mednode/complete_mednode_dataset/naevus/12",
    "kaggle1/melanoma_cancer_dataset/train/benign/melanoma_1",
    "kaggle1/melanoma_cancer_dataset/train/malignant/melanoma_1",
]
ONE = "The mole is symmetrical, smooth and brown."
TWO = "The mole is asymmetrical, jagged and black."
FIRST, SECOND = IMAGES[:2]
# Every shape the released files might have.
SHAPES = {
    "id to text": {"ISIC_0000001": ONE, "ISIC_0000002.jpg": TWO},
    "records": [{"image": "ISIC_0000001.jpg", "caption": ONE}, {"image": SECOND, "caption": TWO}],
    "id to fields": {
        "ISIC_0000001": {"label": "benign", "caption": ONE, "prompt": "Describe the mole, please."},
        "ISIC_0000002": {
            "label": "malignant",
            "caption": TWO,
            "prompt": "Describe the mole, please.",
        },
    },
    "wrapped": {
        "model": "llama",
        "data": [
            {"Img_Path": "C:\\data\\ISIC_0000001.JPG", "Text": ONE},
            {"Img_Path": "/home/x/isic/ISIC_0000002.jpg", "Text": TWO},
        ],
    },
    "unknown names": [
        {"row": 1, "which": "ISIC_0000001", "kind": "nevus", "words": ONE},
        {"row": 2, "which": "ISIC_0000002", "kind": "melanoma", "words": TWO},
    ],
    "pairs": [["ISIC_0000001", ONE], ["ISIC_0000002", TWO]],
    "lists of texts": {"ISIC_0000001": [ONE], "ISIC_0000002": [TWO]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_schema_is_discovered(shape, tmp_path):
    file = tmp_path / "isic2019.json"
    file.write_text(json.dumps(SHAPES[shape]), encoding="utf-8")
    match = read(file, IMAGES)
    assert match.captions == {FIRST: ONE, SECOND: TWO}
    assert match.images_without == sorted(IMAGES[2:])
    assert match.captions_without == match.ambiguous == match.notes == []


def test_csv_and_json_lines_with_line_breaks_inside_texts(tmp_path):
    csv, lines = tmp_path / "captions.csv", tmp_path / "captions.jsonl"
    csv.write_text(
        f'\ufeffid,caption\nISIC_0000001,"The mole is\n\nround, and brown."\n{SECOND},{TWO}\n'
    )
    lines.write_text(
        json.dumps({"id": "ISIC_0000001", "text": "a b c d\u2028e"}, ensure_ascii=False)
    )
    assert read(csv, IMAGES).captions[FIRST] == "The mole is round, and brown."
    assert read(lines, IMAGES).captions == {FIRST: "a b c d e"}


def test_a_folder_of_files_is_matched_per_dataset_and_everything_unmatched_is_counted(tmp_path):
    contents = {
        "isic2019.json": {"ISIC_0000001": ONE, "ISIC_9999999": TWO, "x/ISIC_0000001.jpg": ONE},
        "pad20.json": {"PAT_1_2_3.png": ONE},
        "mednode.json": {"naevus/12.jpg": ONE, "melanoma_1": TWO},
        "kaggle1.json": {"melanoma_1.jpg": TWO, "train/malignant/melanoma_1.jpg": ONE},
        "hiba.json": {"12": "A caption of an image that this corpus lacks."},
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    match = read(tmp_path, IMAGES)
    assert set(match.captions) == {IMAGES[0], IMAGES[2], IMAGES[3], IMAGES[5]}
    assert set(match.captions.values()) == {ONE}
    assert match.images_without == sorted([SECOND, IMAGES[4]])
    assert set(match.captions_without) == {"ISIC_9999999", "melanoma_1", "12"}
    assert match.ambiguous == ["melanoma_1.jpg"]
    records = len(match.captions) + 3 + 1  # and one more that repeats its image's caption
    assert records + 1 == sum(map(len, contents.values()))
    summary = match.summary()
    assert "4 captions matched; 2 images without a caption" in summary
    assert "ISIC_9999999" in summary


BAD = {
    "a.json": ('{"isic": "not closed"', "a.json' cannot be read at line 1"),
    "b.json": ("[1, 2]", "b.json' has at record 1 1; give objects"),
    "c.json": ('{"a": 1, "b": {"c": 2}}', "the keys 'a', 'b'; give a list"),
    "d.json": ('[{"picture": "ISIC_0000001", "n": 3}]', "could be the text.*'picture', 'n'"),
    "e.json": (json.dumps({"photo_77": ONE}), "matches none of the 6 images.*photo_77.*isic2019"),
    "f.csv": ("", "f.csv' holds no records"),
    "g.json": (json.dumps([{"a": "x", "b": ONE}]), "could be the id.*'a', 'b'; rename"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_said_in_one_sentence(name, tmp_path):
    content, message = BAD[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        read(tmp_path / name, IMAGES)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "nowhere.json", IMAGES)


def test_every_dataset_can_have_a_file_of_its_own():
    assert set(DATASETS) == set(SOURCES) - {"own"}
