"""The line that a stage of long work ends with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from drawn_adapter import draw_generator
from generator_cases import POOL
from small_generator import Workspace

from dermaflux.generators import backbone, synthesize
from dermaflux.generators.flux_lora import settings
from dermaflux.params import Backbone
from dermaflux.tracking.runs import Silent


def _last(capsys: pytest.CaptureFixture[str], stage: str) -> str:
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(stage)]
    return lines[-1]


def test_synthesize(here: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draw_generator(here.backbone, tmp_path / "generator")
    section = POOL.model_copy(
        update={"images": 4, "flux_lora": settings.Synthesize(steps=1, guidance=3.5)}
    )
    synthesize.synthesize(
        "flux_lora", section, 7, here.corpus, here.captions, here.models(folder),
        tmp_path / "pool", Silent(),
    )  # fmt: skip
    assert re.fullmatch(
        r"synthesize: 4 images of 128 px \(2 benign, 2 malignant\) in .*/pool, \d\S* images/s",
        _last(capsys, "synthesize:"),
    )


def test_pinned_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone.pin(Backbone(repository="some/model", revision="0" * 40), tmp_path / "backbone")
    line = f"backbone: 'some/model' at {'0' * 40}, by reference, in {tmp_path / 'backbone'}"
    assert _last(capsys, "backbone:") == line
