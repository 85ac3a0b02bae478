"""The rates of a step log against steps of known length and cost."""

from __future__ import annotations

import pytest
import torch

from dermaflux.tracking.runs import Silent
from dermaflux.training.step_log import StepLog, Work


class Recorded(Silent):
    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}

    def metrics(self, values, step):  # type: ignore[no-untyped-def]
        self.steps[step] = dict(values)


def six_steps(
    work: Work | None,
    peak: float | None,
    main: bool = True,
    terms: dict[str, float] | None = None,
) -> Recorded:
    log = Recorded()
    lines = StepLog("finetune", 6, 4, log, lambda step: work, peak, torch.device("cpu"), main)
    for step in range(1, 7):
        lines.step(step, float(step), 0.1, 0.5, 2.0, 0.01, terms)
    return log


def test_lines_hold_the_rates_of_their_steps(capsys: pytest.CaptureFixture[str]) -> None:
    log = six_steps(Work(10, 1000, 250, 4e12), 2e12)
    assert sorted(log.steps) == [4, 6]
    four = log.steps[4]
    assert four["loss"] == 2.5
    assert log.steps[6]["loss"] == 5.5
    assert four["images_per_second"] == pytest.approx(5)
    assert four["tokens_per_second"] == pytest.approx(500)
    assert four["padding_percent"] == pytest.approx(25)
    assert four["tflop_per_second"] == pytest.approx(2)
    assert four["mfu_percent"] == pytest.approx(100)
    assert four["data_wait_ms"] == pytest.approx(10)
    assert four["time_left_minutes"] == pytest.approx(2 * 2 / 60)
    assert four["memory_peak_gib"] > 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2
    assert shown[0].startswith(
        "finetune 4/6: loss 2.5000, 5 images/s, 500 tokens/s, padding 25.0 %, 2 TFLOP/s, "
        "MFU 100.0 %, data wait 10.0 ms/step, memory "
    )
    assert shown[0].endswith("4 s left")


def test_what_is_not_counted_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    uncounted = six_steps(None, 2e12).steps[4]
    assert uncounted["steps_per_second"] == pytest.approx(0.5)
    rates = {"images_per_second", "tokens_per_second", "tflop_per_second", "mfu_percent"}
    assert not rates & uncounted.keys()
    assert "finetune 4/6: loss 2.5000, data wait" in capsys.readouterr().out
    without_peak = six_steps(Work(images=3, flop=1e12), None).steps[4]
    assert rates & without_peak.keys() == {"images_per_second", "tflop_per_second"}


def test_only_the_main_process_prints(capsys: pytest.CaptureFixture[str]) -> None:
    six_steps(Work(10, 1000, 250, 4e12), 2e12, main=False)
    assert capsys.readouterr().out == ""


def test_terms_of_the_loss_are_shown_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    terms = {"diffusion_loss": 0.75, "reconstruction_loss": 0.25}
    four = six_steps(None, None, terms=terms).steps[4]
    assert {name: four[name] for name in terms} == terms
    assert "loss 2.5000 (diffusion 0.7500, reconstruction 0.2500), data" in capsys.readouterr().out
