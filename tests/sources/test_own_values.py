"""Values in a team's own CSV file: placeholders, ids, parts and labels as people write them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from layouts import touch

from dermaflux.core.vocabulary import SKIN_TONES
from dermaflux.errors import InputError
from dermaflux.params import OwnDataset
from dermaflux.sources.adapter import Record
from dermaflux.sources.discovery import discover
from dermaflux.sources.reading.own_values import OwnValues
from dermaflux.sources.reading.tables import Row

COLUMNS = {
    "image": "image",
    "label": "dx",
    "patient_id": "patient",
    "lesion_id": "lesion",
    "skin_tone": "tone",
    "diagnosis": "diagnosis",
    "split": "part",
    "licence": "rights",
}
PLACEHOLDERS = ("NA", "nan", "None", "unknown", "-", "-1", "N/A", "null", "?", "not available")


def read(
    data: Path, column: str, values: list[str], labels: dict[object, str] | None = None
) -> list[Record]:
    """Records of images that differ in one column only, in the order of the values."""
    names = [f"{number:03d}" for number in range(len(values))]
    touch(data / "ours", *(f"{name}.jpg" for name in names))
    given_columns = {"image": "", "dx": "benign", **{name: "" for name in COLUMNS.values()}}
    with (data / "ours/t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(given_columns)
        for name, value in zip(names, values, strict=True):
            row = given_columns | {"image": name, "dx": "benign"} | {column: value}
            writer.writerow(row.values())
    entry = {"name": "clinic", "folder": "ours", "csv": "t.csv", "columns": COLUMNS}
    own = OwnDataset.model_validate({**entry, "labels": labels or {}})
    (dataset,) = discover(data, ["clinic"], [own])[0]
    return sorted(dataset.source.read(dataset.root), key=lambda record: record.original_id)


@pytest.mark.parametrize("column", ["patient", "lesion", "tone", "diagnosis", "rights", "part"])
def test_a_placeholder_is_null_counted_and_costs_no_image(tmp_path: Path, column: str) -> None:
    for record in read(tmp_path, column, [*PLACEHOLDERS, ""]):
        facts = record.facts
        assert (facts.problem, facts.label, record.split) == (None, "benign", "train")
        assert (facts.patient_id, facts.lesion_id) == (None, None)
        assert (facts.skin_tone, facts.diagnosis, facts.licence) == (None, None, None)
        blank = record.original_id == f"{len(PLACEHOLDERS):03d}"
        assert [name for name, _ in facts.unread] == ([] if blank else [column])


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        # A column of whole numbers that starts at the beginning: 0 is a patient, written two ways.
        ("0 0.0 1 1.0 2", "0 0 1 1 2"),
        ("0 0.0 NA 5.0 5", "0 0 null 5 5"),
        # Elsewhere it is what a database gives a row without a patient.
        ("0 0.0 P07 P08 P09", "null null P07 P08 P09"),
        ("0 0.0 104233 104234 00", "null null 104233 104234 null"),
        ("0 0 0 0.0 NA", "null null null null null"),
        ("101 101.0 101.00 IP_0000001 p101", "101 101 101 IP_0000001 p101"),
        ("-1 007 007.0 1 -999", "null 007 007 1 null"),
        # One patient as several people type it, under the first spelling; never two as one.
        ("p01 P01 P02 P1", "P01 P01 P02 P1"),
        ("7 007 7.0 70", "007 007 007 70"),
        ("M\u00fcller MU\u0308LLER Muller", "MU\u0308LLER MU\u0308LLER Muller"),
    ],
)
def test_ids_of_one_patient_are_one_id(tmp_path: Path, values: str, ids: str) -> None:
    found = [record.facts.patient_id for record in read(tmp_path, "patient", values.split())]
    whole = {"null": None, "IP_0000001": "IP_0000001"}
    assert found == [whole.get(value, f"clinic:{value}") for value in ids.split()]


def test_a_validation_part_is_training_and_an_unknown_part_is_kept_out(tmp_path: Path) -> None:
    values = ["train", "Val", "DEV", "valid", "Test", "hold-out", "", "external", "3"]
    records = read(tmp_path, "part", values)
    used = {value: r.split for value, r in zip(values, records, strict=True) if not r.facts.problem}
    assert used == {
        **dict.fromkeys(("train", "Val", "DEV", "valid", ""), "train"),
        **dict.fromkeys(("Test", "hold-out"), "test"),
    }
    problem = records[7].facts.problem
    assert problem
    assert problem.rule == "bad-value"
    assert problem.reason.endswith(
        "part = 'external'; it must be train, validation or test; write one of them"
    )


def test_an_image_in_two_parts_is_in_neither(tmp_path: Path) -> None:
    read(tmp_path, "part", ["train", "test"])
    table = tmp_path / "ours/t.csv"
    table.write_text(table.read_text().replace("001,", "000,"))
    own = OwnDataset.model_validate(
        {"name": "clinic", "folder": "ours", "csv": "t.csv", "columns": COLUMNS}
    )
    records = list(discover(tmp_path, [], [own])[0][0].source.read(tmp_path / "ours"))
    rules = {record.facts.problem.rule for record in records if record.facts.problem}
    assert rules == {"contradiction", "no-row", "repeated-row"}


def test_a_column_of_folds_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, "part", ["0", "1", "1", "NA"])
    assert str(caught.value) == (
        f"{tmp_path}/ours/t.csv: no word of the column 'part' is a part: '1' 2, '0' 1; write "
        "train, validation or test, or leave split out of ingest.own 'clinic' columns"
    )


@pytest.mark.parametrize("zero", [0, 0.0, "0", "0.0", False, "FALSE"])
@pytest.mark.parametrize(
    "values",
    [
        *("0 1", "0.0 1.0", "False True", "FALSE TRUE", "00 01", "0,0 1,0"),
        *("no yes", "FALSCH WAHR", "nein ja", "FAUX VRAI", "FALSO VERDADERO", "non oui"),
    ],
)
def test_labels_in_numbers(tmp_path: Path, zero: object, values: str) -> None:
    one = {False: True, "FALSE": "TRUE", "0": "1", "0.0": "1.0"}.get(str(zero), True)
    records = read(tmp_path, "dx", values.split(), {zero: "benign", one: "malignant"})
    assert [record.facts.label for record in records] == ["benign", "malignant"]


def test_words_that_the_mapping_lacks_are_listed_at_once(tmp_path: Path) -> None:
    words = ["nv"] * 3 + ["mel"] * 2 + ["bcc", "NA"]
    with pytest.raises(InputError) as caught:
        read(tmp_path, "dx", words)
    assert str(caught.value) == (
        f"{tmp_path}/ours/t.csv: ingest.own 'clinic' knows no word of the column 'dx': 'nv' 3, "
        "'mel' 2, 'bcc' 1; say in labels whether each is benign, malignant or indeterminate, such "
        "as labels: {'nv': ..., 'mel': ...}"
    )
    # Where some are known, the others are left out and counted, and nothing becomes a default.
    facts = [record.facts for record in read(tmp_path, "dx", words, {"NV": "benign"})]
    assert [f.label for f in facts] == ["benign"] * 3 + [None] * 4
    assert [f.problem.rule if f.problem else None for f in facts] == [
        *[None] * 3,
        *["bad-value"] * 3,
        "no-label",
    ]
    assert [f.unread for f in facts[3:6]] == [(("dx", "mel"),)] * 2 + [(("dx", "bcc"),)]
    named = read(tmp_path, "dx", words, {"nv": "benign", "mel": "malignant", "na": "indeterminate"})
    assert [record.facts.label for record in named][-2:] == [None, "indeterminate"]


def test_an_unknown_licence_is_no_optional_value(tmp_path: Path) -> None:
    facts = [record.facts for record in read(tmp_path, "rights", ["CC BY 4.0", "ask Bob", "NA"])]
    assert [f.licence for f in facts] == ["CC-BY", None, None]
    assert [f.problem is None for f in facts] == [True, False, True]


VALUES = st.text(max_size=12) | st.sampled_from([*PLACEHOLDERS, "FST2", "12", "9" * 5000 + ".0"])


@examples(max_examples=300, deadline=None)
@given(st.tuples(VALUES, VALUES, VALUES, VALUES))
def test_no_optional_value_costs_an_image(values: tuple[str, ...]) -> None:
    own = OwnDataset.model_validate(
        {
            "name": "clinic",
            "folder": "ours",
            "csv": "t.csv",
            "columns": dict(list(COLUMNS.items())[:6]),
        }
    )
    cells = dict(
        zip(("patient", "lesion", "tone", "diagnosis"), map(str.strip, values), strict=True)
    )
    row = Row("t.csv:2", {"image": "a", "dx": "benign", **cells})
    facts = OwnValues(own, [row], "t.csv").facts(row)
    assert (facts.label, facts.problem) == ("benign", None)
    assert facts.skin_tone in (None, *SKIN_TONES)
    read_values = (facts.patient_id, facts.lesion_id, facts.skin_tone, facts.diagnosis)
    unread = dict(facts.unread)
    for (column, text), value in zip(cells.items(), read_values, strict=True):
        assert (value is None) == (not text or unread.get(column) == text)
