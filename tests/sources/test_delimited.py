"""CSV files as people really have them: any separator, encoding and header, and what is no CSV."""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from dermaflux.errors import InputError
from dermaflux.sources.reading.delimited import has_columns
from dermaflux.sources.reading.tables import read_csv

ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "cp1252": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
}
ROWS = [
    {"image": "Köln 1", "dx": 'naevus, "blue"; of\n5 mm|x\ty', "site": ""},
    {"image": "2", "dx": "5,5 mm", "site": "arm"},
]


def table(separator: str, end: str = "\n") -> str:
    """`ROWS` as a spreadsheet saves them: what holds a separator, a quote or a line end is quoted;
    with a blank line, a short row and one of empty cells."""
    quoted = '"naevus, ""blue""; of\n5 mm|x\ty"'
    first, second = ("Köln 1", quoted), ("2", '"5,5 mm"', "arm")
    lines = [("image", "dx", "site"), first, (), second, ("", "", "")]
    return end.join(separator.join(cells) for cells in lines) + end


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_separator_in_every_encoding(
    tmp_path: Path, encoding: str, separator: str, end: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(ENCODINGS[encoding] + table(separator, end).encode(encoding))
    rows = read_csv(path, ("image", "dx"), ("site", "absent"))
    assert [row.values for row in rows] == [row | {"absent": ""} for row in ROWS]
    assert [row.location for row in rows] == ["t.csv:3", "t.csv:5"]


@pytest.mark.parametrize(
    "text",
    [
        "image,dx\na,nv",
        "Image,DX\na,nv",
        " image , dx \n a , nv ",
        '"image","dx"\n"a","nv"',
        'image, "dx"\na, "nv"',
        "\ufeff\ufeffimage,dx\na,nv",
        "\u201cimage\u201d,'dx'\na,nv",
        "\n\nimage,dx\n\na,nv\n\n",
        "sep=,\nimage,dx\na,nv",
        '"sep=;"\nimage;dx\na;nv',
        "SEP=|\nimage|dx\na|nv",
        "sep=\t\nimage\tdx\na\tnv",
        "other;columns,image,dx\n0;1,a,nv",
        ",image,dx\n0,a,nv",
        "IMAGE,image,dx\nx,a,nv",  # the exact name is meant
        "x,x,image,dx\n0,1,a,nv",  # nobody asks for those two
        "image,dx,,\na,nv,,",
    ],
)
def test_spellings_of_a_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    assert [row.values for row in read_csv(path, ("image", "dx"))] == [{"image": "a", "dx": "nv"}]
    assert has_columns(path, ("image", "dx"))


def test_a_single_needed_column_does_not_make_another_separator(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("image,a;image;b\nx,1;2;3\n")
    assert read_csv(path, ("image",))[0].values == {"image": "x"}


def workbook(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "application/vnd.oasis.opendocument.spreadsheet")
    return out.getvalue()


def parquet_file() -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"image": ["a"]}), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            workbook("docProps/app.xml", "xl/workbook.xml"),
            "an Excel workbook, not CSV text; export",
        ),
        (workbook("mimetype", "content.xml"), "an OpenDocument spreadsheet, not CSV text; export"),
        (workbook("t.csv"), "a zip archive, not CSV text; unpack it"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500),
            "an Excel workbook, not CSV text; export",
        ),
        (parquet_file(), "a Parquet file, not CSV text; export it as CSV"),
        (
            gzip.compress(b"image,dx\na,nv\n", mtime=0),
            "compressed with gzip, not CSV text; unpack it",
        ),
        (b'[{"image": "a", "dx": "nv"}]', "a JSON file, not CSV text; export it as CSV"),
        (b'{"image": {"0": "a"}}', "a JSON file, not CSV text"),
        (b"<!DOCTYPE html><html><title>Log in</title>", "an HTML or XML page, not CSV text; downl"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer, not"),
        (b"", "is empty"),
        (b"\n\n  \n", "is empty"),
        (b"image,dx\na,n\0v\n", "holds zero bytes, so it is not CSV text; download it again"),
        (bytes(range(256)) * 8, "holds zero bytes"),
        (b"image,dx\na,\x81\x9d\xff\n", "is not CSV text in UTF-8, UTF-16 or a Western European"),
        (
            codecs.BOM_UTF16_LE + "image,dx".encode("utf-16-le") + b"\n",
            "is not CSV text in UTF-8, ",
        ),
        (b"image,dx\na,b,c\n", "has 3 values and 2 columns in line 2; name every column in the"),
        (b"image;dx\na;nevus; blue\n", "quotation marks round a value that holds ';'"),
        (
            b'image,dx\na,nv\nb,"nv\nc,mel\n',
            "is not well-formed CSV (after t.csv:2: unexpected end",
        ),
        (b'image,dx\na,"nv\nb,"mel"\n', "is not well-formed CSV (after the header of t.csv: ','"),
        (b"image,dx\na," + b"x" * 200_000, "field larger than field limit"),
        (b"image,dx,dx\na,nv,mel\n", "has two columns 'dx' and 'dx'; rename or remove one of them"),
        (b"image,Dx,DX\na,nv,mel\n", "has two columns 'Dx' and 'DX'"),
        (
            b"Image Name,dx\na,nv\n",
            "lacks the column 'image', its columns are 'Image Name, dx'; did",
        ),
        (b"image,diagnosis\na,nv\n", "lacks the column 'dx', its columns are 'image, diagnosis';"),
        (b"image;diagnosis\na;nv\n", "lacks the column 'dx', its columns are 'image, diagnosis';"),
        (b"image dx\na nv\n", "lacks the column 'image', its columns are 'image dx'"),
        (b"\x1b[2Jevil,dx\n", r"its columns are '\x1b[2Jevil, dx'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_csv(path, ("image", "dx"))
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert not has_columns(path, ("image", "dx", "site"))


def test_a_folder_and_an_absent_file_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read .*Is a directory"):
        read_csv(tmp_path, ("image",))
    with pytest.raises(InputError, match="is missing"):
        read_csv(tmp_path / "t.csv", ("image",))


def test_a_hostile_name_moves_no_cursor(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[2Jt.csv"
    path.write_text("a\n")
    with pytest.raises(InputError) as caught:
        read_csv(path, ("image",))
    assert str(caught.value).isprintable()
    assert r"\x1b[2Jt.csv lacks the column 'image'" in str(caught.value)


def test_the_columns_asked_for_take_the_name_that_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("IMAGE,Dx,more,,\na.jpg,nv,1,,\nb.jpg\n,,,,\n")
    rows = read_csv(path, ("Image",), ("DX",))
    assert [row.values for row in rows] == [
        {"Image": "a.jpg", "DX": "nv"},
        {"Image": "b.jpg", "DX": ""},
    ]
