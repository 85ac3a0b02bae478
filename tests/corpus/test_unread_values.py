"""Values that gave nothing are counted in the report and told in one line; no image is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ingested import settings
from layouts import random_image, save

from dermaflux import paths
from dermaflux.core import table
from dermaflux.corpus import ingest

OWN = {
    "name": "clinic",
    "folder": "clinic",
    "csv": "t.csv",
    "columns": {"image": "Bild", "label": "Befund", "patient_id": "Patient", "skin_tone": "Typ"},
    "labels": {0: "benign", 1: "malignant"},
}


def test_a_hospitals_excel_file_is_kept_whole(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["bild;Befund;Patient;Typ"]
    for number in range(8):
        save(random_image(900 + number), workspace / f"clinic/{number}.jpg")
        patient = "NA" if number % 2 else f"{100 + number}.0"
        lines.append(
            f"{number};{number % 2}.0;{patient};{('FST2', '-1', 'brown', '12')[number % 4]}"
        )
    lines.append("8;2.0;;")
    save(random_image(908), workspace / "clinic/8.jpg")
    (workspace / "clinic/t.csv").write_text("\r\n".join(lines), encoding="utf-16")
    ingest.run(settings(own=[OWN]))
    rows = table.metadata(paths.CORPUS).sort_values("image_id")
    assert list(rows["label"]) == ["benign", "malignant"] * 4
    patients = [f"clinic:{100 + number}" for number in range(0, 8, 2)]
    assert list(rows["patient_id"].dropna()) == patients
    assert list(rows["patient_id"].isna()) == [False, True] * 4
    published = rows["skin_tone"].where(rows["skin_tone_origin"] == "published")
    assert list(published.fillna("")) == ["II", "", "", "I-II"] * 2
    report = json.loads(paths.INGEST_REPORT.read_text())
    assert report["unread_values"] == {
        "clinic": {
            "Patient": {"rows": 4, "values": {"NA": 4}},
            "Typ": {"rows": 4, "values": {"-1": 2, "brown": 2}},
            "Befund": {"rows": 1, "values": {"2.0": 1}},
        }
    }
    assert [line for line in capsys.readouterr().out.splitlines() if "usable" in line] == [
        "clinic: the column 'Patient' has no usable value in 4 of 9 rows: 'NA' 4",
        "clinic: the column 'Typ' has no usable value in 4 of 9 rows: '-1' 2, 'brown' 2",
        "clinic: the column 'Befund' has no usable value in 1 of 9 rows: '2.0' 1",
    ]
