"""The audit's comparisons on the page: every figure, its interval, and what is said without one."""

from __future__ import annotations

import re
from typing import Any

from dermaflux import paths
from dermaflux.core.files import write_json
from dermaflux.params import Params
from dermaflux.reporting import report

NAMES = ("fid", "kid", "inception_score", "precision", "recall", "density", "coverage")


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.25, "high": value + 0.25}


def missing(reason: str) -> dict[str, Any]:
    return {"value": None, "low": None, "high": None, "reason": reason}


def comparison(reference: str, group: str, name: str, count: int, **changes: Any) -> dict[str, Any]:
    floor = {"images": 9, "reference_images": 8, **{each: figure(0.125) for each in NAMES}}
    figures = {each: figure(number + 0.5) for number, each in enumerate(NAMES)}
    figures["inception_score"] = missing("the trunk gives no class scores")
    return {"reference": reference, "group": group, "name": name, "images": 1234,
            "reference_images": count, "memorised": {"count": 3, **figure(0.5)},
            **figures, "floor": floor, **changes}  # fmt: skip


def test_every_comparison_is_a_row_and_what_is_missing_is_said(workspace: Params) -> None:
    few = {name: missing("needs 100 images <here>") for name in NAMES if name != "kid"}
    few["inception_score"] = missing("the trunk gives no class scores")
    rows = [
        comparison("train", "all", "all", 5678),
        comparison("test", "source", "ddi", 37, **few),
    ]
    paths.AUDIT_FIGURES.mkdir()
    write_json(paths.AUDIT_FIDELITY, {"rows": rows})
    page = report.render(workspace)
    section = page[page.index('id="audit"') :]
    section = section[: section.index("</section>")]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line) for line in section.splitlines()]
    whole = next(line for line in cells if "whole pool" in line)
    assert whole == [
        "train", "whole pool", "1,234 and 5,678", "0.50 (0.25 to 0.75)",
        "1.5000 (1.2500 to 1.7500)", "3.500 (3.250 to 3.750)", "4.500 (4.250 to 4.750)",
        "5.500 (5.250 to 5.750)", "6.500 (6.250 to 6.750)", "0.500 (0.250 to 0.750)",
    ]  # fmt: skip
    source = next(line for line in cells if "source ddi" in line)
    assert source[2:5] == ["1,234 and 37", "–", "1.5000 (1.2500 to 1.7500)"]
    floor, why = cells[cells.index(source) + 1 : cells.index(source) + 3]
    reason = "FD, Precision, Recall, Density, Coverage: needs 100 images &lt;here&gt;"
    assert floor[1:5] == ["", "floor: 9 and 8", "0.12", "0.1250"]
    assert why[1:] == [reason]
    folded = section.split("<details>")[1]  # a source a line would bury the pool
    assert "source ddi" in folded
    assert ">whole pool<" in section
    assert ">whole pool<" not in folded
    assert "IS is not given: the trunk gives no class scores." in section
