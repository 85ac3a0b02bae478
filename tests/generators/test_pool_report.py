from __future__ import annotations

import csv
import json
from pathlib import Path

from dermaflux.core import table
from dermaflux.generators.pool import report
from dermaflux.generators.pool.report import Refused


def test_counts_add_up_and_every_refused_file_has_its_reason(tmp_path: Path) -> None:
    rows = [
        {"image_id": f"synthetic/{index}", "split": "train", "label": label}
        for index, label in enumerate(["malignant", "benign", "malignant"])
    ]
    table.write(rows, tmp_path / "pool", 64)
    refused = [
        Refused("b, or not.png", "small", 'it says "64 x 64"'),
        Refused("a.png", "small", "64 x 64 is below 128"),
        Refused("a.png", "damaged", "cut off"),
    ]
    report.write(tmp_path / "pool", tmp_path / "report", refused, {"found": 8})
    counts = json.loads((tmp_path / "report" / report.COUNTS).read_text())
    assert counts == {
        "images": {"benign": 1, "malignant": 2},
        "quarantined": {"damaged": 1, "small": 2},
        "found": 8,
    }
    with (tmp_path / "report" / report.QUARANTINE).open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["file", "rule", "reason"]
    assert [Refused(*line) for line in lines] == [refused[2], refused[1], refused[0]]
    # The report of a pool without refusals replaces an older one whole.
    report.write(tmp_path / "pool", tmp_path / "report", [])
    assert (tmp_path / "report" / report.QUARANTINE).read_text() == "file,rule,reason\n"
