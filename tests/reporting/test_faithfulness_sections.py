"""The audit's groups on the page: every figure with interval and number, every reason in place."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from dermaflux import paths
from dermaflux.audit.faithfulness import artefacts, control, coverage, separability
from dermaflux.core.files import write_json
from dermaflux.params import Params
from dermaflux.reporting import report


def measured() -> dict[str, Any]:
    """The four keys as the audit writes them, of made-up images."""
    draw = np.random.default_rng(0)
    levels = draw.integers(0, 2, 60)
    texts = [("The border is smooth.", "The border is jagged.")[level] for level in levels]
    values = [
        {"asymmetry": None, "border": level + draw.normal(), "colours": None} for level in levels
    ]
    labels = ["benign"] * 60
    asked = control.report(texts, labels, values, ["benign"])

    def part(count: int) -> separability.Part:
        points = draw.normal(size=(count, 5)).astype(np.float32)
        return separability.Part(points, np.full(count, "benign"), np.arange(count))

    frame = pd.DataFrame({"skin_tone": ["I-II", "V-VI"] * 60, "source": "ddi", "diagnosis": None})
    rows = np.arange(120)
    marks = [{"grid_8": value, "saturation": 0.0} for value in draw.normal(size=120)]
    return {
        "control": {"synthetic": asked, "permuted": asked,
                    "real": {"value": None, "reason": "no <captions>"}, "images": 60},
        "separability": {"trunk": "pixels",
                         **separability.report(part(120), part(150), part(9))[0]},
        "coverage": coverage.report(
            frame, frame, rows, frame, rows, {"skin_tone": {"I-II": 0.5, "V-VI": 0.5}}
        ),
        "artefacts": {
            "reference": "train", "side": 128, "resized_reference_images": 12,
            "marks": artefacts.compare(marks, marks[:7]),
            "repeats": artefacts.repeats(list("aab"), np.array([1, 1, 0.1]), 0.5),
        },
    }  # fmt: skip


def section(page: str, name: str) -> list[list[str]]:
    part = page[page.index(f'<section id="audit-{name}"') :]
    part = part[: part.index("</section>")]
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line) for line in part.splitlines()]


def test_every_figure_is_on_the_page_and_what_is_missing_is_said(workspace: Params) -> None:
    audit = measured()
    write_json(paths.AUDIT_REPORT, {"memorised_count": 0, **audit})
    page = report.render(workspace)

    border = audit["control"]["synthetic"]["benign"]["border"]
    said = f"{border['value']:.3f} ({border['low']:.3f} to {border['high']:.3f}), 60 images"
    rows = section(page, "control")
    whole = next(row for row in rows if row[1:2] == ["benign"])
    assert whole[3] == said
    assert "of 60 texts 0 state it" in whole[2]
    assert any("not given: no &lt;captions&gt;" in row for row in rows)

    auc = audit["separability"]["train"]["classes"]["benign"]
    shown = f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    rows = section(page, "separability")
    assert ["120 and 150", shown] in [row[2:] for row in rows]
    assert any("there are 120 and 9" in row[-1] for row in rows if row)

    rows = section(page, "coverage")
    tone = next(row for row in rows if row[:1] == ["V-VI"])
    assert tone[1] == "0.500"
    assert tone[2].endswith("60 of 120")
    assert "no training image has a diagnosis" in page

    rows = section(page, "artefacts")
    grid = next(row for row in rows if row[:1] == ["grid of 8 px, dB"])
    assert grid[-1] == "not given: needs 100 images on either side, and there are 120 and 7"
    assert any(row[-1:] and row[-1].endswith("2 of 3 images") for row in rows)
    assert "12 of the real images were resized to 128 px" in page
