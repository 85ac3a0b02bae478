"""Names in CSV files that are written otherwise than the files: which match, which must not."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import rule, touch

from dermaflux.core.file_names import plain
from dermaflux.params import OwnDataset
from dermaflux.sources.adapter import Facts, Record
from dermaflux.sources.reading import csv_table
from dermaflux.sources.reading.files import ImageFile, join
from dermaflux.sources.reading.tables import Row
from dermaflux.sources.reading.unmatched import rewritten_example, unmatched_example


def clinic(root: Path, files: list[str], names: list[str]) -> list[Record]:
    """Records of an own dataset; the row numbers are the lines of its CSV file."""
    touch(root, *files)
    rows = "".join('"' + name.replace('"', '""') + '",benign\n' for name in names)
    (root / "t.csv").write_text(f"image,label\n{rows}", encoding="utf-8")
    columns = {"image": "image", "label": "label"}
    own = {"name": "clinic", "folder": "ours", "csv": "t.csv", "columns": columns}
    return list(csv_table.source(OwnDataset.model_validate(own)).read(root))


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        # Another root, in both directions and any notation.
        ("images/NEL/Nel001.jpg", "NEL/Nel001.jpg"),
        ("NEL/Nel001.jpg", "images/NEL/Nel001.jpg"),
        ("NEL/Nel001.jpg", "images\\NEL\\Nel001.jpg"),
        ("images/x.jpg", "/kaggle/input/skin/images/x.jpg"),
        ("x.jpg", "/kaggle/input/skin/train/x.jpg"),
        ("fotos/x.jpg", "D:\\Klinik\\bilder\\x.jpg"),
        ("fotos/x.jpg", "\\\\server\\share\\x.jpg"),
        ("x.jpg", "../data/x.jpg"),
        ("a/x.jpg", "./a//./x.jpg"),
        ("a/mole 1.jpg", "file:///C:/a/mole%201.jpg"),
        ("x.jpg", "https://host.example/a/x.jpg?raw=1#top"),
        ("x.jpg", "s3://bucket/a/x.jpg"),
        ("deep/er/x.jpg", "x"),
        # Unicode form, letter case, suffix, blanks, quotes.
        (nfd("Läsion_1.jpg"), "Läsion_1"),
        ("Läsion_1.jpg", nfd("Läsion_1.jpg")),
        (nfd("Bilder/Läsion.jpg"), "LÄSION.JPG"),
        ("IMG_A.jpg", "img_a.jpg"),
        ("img_a.JPG", "IMG_A.jpeg"),
        ("Images/IMG_A.jpg", "/data/images/img_a"),
        ("x.png", "x.jpg"),
        ("x.jpg", "x.dcm"),
        ("x.jpg.jpg", "x.jpg"),
        ("x.jpg", " 'x.jpg' "),
        ("x.jpg", "\u201cx.jpg\u201d"),
        ("my  mole.jpg", "my mole.jpg"),
        ("my mole.jpg", "my%20mole.jpg"),
        ("photo.jfif", "photo.jfif"),
        ("photo.HEIC", "photo.heic"),
        # What a spreadsheet or a table makes of numbers.
        ("101.jpg", "101.0"),
        ("101.jpg", "101.0.jpg"),
        ("101.jpg", "101,00"),
        ("00003.jpg", "3"),
        ("00003.jpg", "3.0"),
        ("3.jpg", "00003"),
        ("a/007.png", "/old/a/7.jpg"),
    ],
)
def test_a_name_finds_its_only_file(tmp_path: Path, file: str, name: str) -> None:
    records = clinic(tmp_path, [file, "other/zzz.jpg"], [name, "yyy"])
    matched = [record for record in records if record.row == "t.csv:2"]
    assert [(r.path, rule(r)) for r in matched] == [(tmp_path / file, None)]
    assert sorted(str(rule(r)) for r in records) == ["None", "no-image", "no-row"]


@pytest.mark.parametrize(
    ("files", "names", "rules"),
    [
        # Two files, or two rows: nobody knows which.
        (["a/x.jpg", "b/x.jpg"], ["x.jpg"], ["ambiguous-name"] * 3),
        (["a/NEL/x.jpg", "b/NEL/x.jpg"], ["NEL/x.jpg"], ["ambiguous-name"] * 3),
        (["Img.jpg", "iMG.jpg"], ["IMG.jpg"], ["ambiguous-name"] * 3),
        (["003.jpg", "00003.jpg"], ["3"], ["ambiguous-name"] * 3),
        (["img.jpg"], ["IMG", "Img"], ["ambiguous-name"] * 3),
        (["003.jpg"], ["3", "03"], ["ambiguous-name"] * 3),
        (["x.jpg"], ["/p1/x.jpg", "/p2/x.jpg"], ["ambiguous-name"] * 3),
        # One image per patient, all of one name: what a folder lacks is not in another one.
        (["p1/i.jpg", "p2/i.jpg"], ["p1/i.jpg", "p3/i.jpg"], ["None", "no-image", "no-row"]),
        (["a/p1/i.jpg", "a/p2/i.jpg"], ["p1/i.jpg", "/b/p3/i.jpg"], ["None", "no-image", "no-row"]),
        (["p1/a.jpg", "p2/b.jpg"], ["p1/b.jpg", "p2/a.jpg"], ["no-image"] * 2 + ["no-row"] * 2),
        # Numbers that are not whole, or rounded.
        (["1.jpg"], ["1.5"], ["no-image", "no-row"]),
        (["1230000000000.jpg"], ["1.23E+12"], ["no-image", "no-row"]),
        (["x1.jpg"], ["x01"], ["no-image", "no-row"]),
        (["x.jpg"], [""], ["no-image", "no-row"]),
    ],
)
def test_a_name_that_fits_twice_or_elsewhere_finds_none(
    tmp_path: Path, files: list[str], names: list[str], rules: list[str]
) -> None:
    assert sorted(str(rule(r)) for r in clinic(tmp_path, files, names)) == rules


@pytest.mark.parametrize(
    ("files", "names", "expected"),
    [
        # Equal names win over looser readings, whatever the order.
        (["x.jpg", "a/x.jpg"], ["x", "a/x"], {2: "x.jpg", 3: "a/x.jpg"}),
        (["x.jpg", "a/x.jpg"], ["x"], {2: "x.jpg"}),
        (["IMG.jpg", "img.jpg"], ["img", "IMG"], {2: "img.jpg", 3: "IMG.jpg"}),
        ([nfd("Ä.jpg"), "ä.jpg"], ["Ä"], {2: nfd("Ä.jpg")}),
        (["3.jpg", "03.jpg"], ["03", "3"], {2: "03.jpg", 3: "3.jpg"}),
        (["101.jpg", "00101.jpg"], ["101.0"], {2: "101.jpg"}),
        (["a/x.jpg", "b/x.png"], ["x.png"], {2: "b/x.png"}),
        (["x.jpg", "x.png"], ["x.png"], {2: "x.png"}),
        # A camera's other formats beside its JPEG take nothing from it.
        (["x.HEIC", "x.jpg"], ["x"], {2: "x.jpg"}),
        (["x.cr2", "x.jpg", "x.dng"], ["x.jpg"], {2: "x.jpg"}),
        (["d/x.avif", "d/x.mpo"], ["x"], {2: "d/x.mpo"}),
        (["d/X.dcm", "d/X.png"], ["x"], {2: "d/X.png"}),
        (["x.heic"], ["x"], {2: "x.heic"}),
        # The longest common end decides.
        (["a/p1/i.jpg", "b/p2/i.jpg"], ["/c/p2/i", "/c/p1/i"], {3: "a/p1/i.jpg", 2: "b/p2/i.jpg"}),
        (["malignant/1.jpg"], ["/d/benign/1.jpg", "/d/malignant/1.jpg"], {3: "malignant/1.jpg"}),
        # A dot in a name is not a suffix.
        (["a.raw.jpg", "a.jpg"], ["a.raw", "a"], {2: "a.raw.jpg", 3: "a.jpg"}),
    ],
)
def test_the_strictest_reading_decides(
    tmp_path: Path, files: list[str], names: list[str], expected: dict[int, str]
) -> None:
    records = clinic(tmp_path, files, names)
    assert {r.row: r.path for r in records if r.row and r.path} == {
        f"t.csv:{line}": tmp_path / file for line, file in expected.items()
    }


def test_what_does_not_match_is_said_with_both_sides(tmp_path: Path) -> None:
    clash = clinic(tmp_path / "clash", ["a/x.jpg", "b/x.png"], ["x"])
    assert {r.facts.problem.reason for r in clash if r.facts.problem} == {
        "t.csv:2 ('x') may mean 'a/x.jpg' and 'b/x.png'; write the file's path below the folder "
        "into the row, or rename one of the files"
    }
    (rounded,) = [r for r in clinic(tmp_path / "e", ["1.jpg"], ["1.23E+12"]) if r.path is None]
    assert rounded.facts.problem
    assert "'1.23E+12', a number that a spreadsheet has rounded" in rounded.facts.problem.reason
    none = clinic(tmp_path / "none", ["images/a.jpg", "images/b.jpg"], ["c\x1b.jpg", "d.jpg"])
    assert unmatched_example(none) == (
        r"none of the 2 names in t.csv, such as 'c\x1b.jpg', matches one of the 2 images without a "
        "row, such as 'images/a.jpg'; make the names in the CSV file those of the image files"
    )
    some = clinic(tmp_path / "some", ["a.jpg", "b.jpg", "003.jpg"], ["a.jpg", "c.jpg", "3"])
    assert (unmatched_example(some) or "").startswith(
        "1 of the 3 names in t.csv, such as 'c.jpg', match none of the 1 image without a row"
    )
    assert rewritten_example(some) == (
        "1 name in t.csv matched an image whose name is written differently, such as '3' and "
        "'003.jpg'"
    )
    alike = clinic(tmp_path / "alike", [nfd("ä.jpg")], ["ä.jpg"])
    assert (rewritten_example(alike) or "").endswith("look alike and differ in their Unicode form")
    whole = clinic(tmp_path / "whole", ["a.jpg"], ["a"])
    assert (unmatched_example(whole), rewritten_example(whole)) == (None, None)


segments = st.text("aAä\u0308.10", min_size=1, max_size=3).filter(lambda name: name.strip("."))
paths = st.lists(segments, min_size=1, max_size=3).map("/".join)
written = st.tuples(st.sampled_from(["", "/", "/b/", "./", "C:\\"]), paths).map("".join)


@given(st.lists(paths, max_size=6, unique=True), st.lists(written, max_size=6, unique=True))
@settings(max_examples=150, deadline=None)
def test_any_names_are_matched_one_to_one_and_none_is_lost(
    files: list[str], rows: list[str]
) -> None:
    images = [ImageFile(name, Path(f"{name}.jpg")) for name in files]
    table = [Row(f"t:{line}", {"image": name}) for line, name in enumerate(rows)]
    records = list(join(images, table, "image", lambda row: Facts("benign"), "train"))
    matched = [record for record in records if record.path and record.row]
    assert sorted(str(r.path) for r in records if r.path) == sorted(f"{n}.jpg" for n in files)
    assert {r.row for r in records if r.row} == {row.location for row in table}
    assert len({r.row for r in matched}) == len(matched)
    for record in matched:
        name = rows[int(str(record.row).split(":")[1])]
        assert name not in files or str(record.path) == f"{name}.jpg"
        # An independent reading: what matches is equal without form, case, folders and zeros.
        ends = [
            plain(text.split("/")[-1].split("\\")[-1]) for text in (name, str(record.path)[:-4])
        ]
        digits = [end.split(".0")[0].lstrip("0") for end in ends]
        assert ends[0] == ends[1] or digits[0] == digits[1]
