from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dermaflux.core.checkpoints import checkpoint
from dermaflux.errors import InputError
from dermaflux.tracking.runs import Silent
from dermaflux.training.fit import Curves, Event, Settings, Step, fit
from dermaflux.training.step_log import Meter, StepLog, Work

SETTINGS = Settings(
    steps=30, learning_rate=0.1, warmup_steps=3, maximum_gradient_norm=1.0, checkpoint_steps=7,
    log_steps=10,
)  # fmt: skip


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()


def train(name: str, settings: Settings) -> tuple[torch.Tensor, Curves]:
    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))

    def step_of(step: int) -> list[Step]:
        goal = torch.randn(2, generator=torch.Generator().manual_seed(step))
        # Two micro-batches whose losses add up to the step's.
        return [Step(0.5 * (weight - goal).square().sum(), [str(step)]) for _ in range(2)]

    with checkpoint("test", name) as saved:
        curves = fit("test", {"w": weight}, settings, step_of, saved, Silent())
        saved.discard()
    return weight.detach(), curves


def test_the_average_is_that_of_the_weights_on_the_way() -> None:
    decay, seen = 0.8, []
    expected = torch.tensor([3.0, -2.0], dtype=torch.float64)
    plain: list[torch.Tensor] = []

    weights: list[torch.Tensor] = []

    def run(settings: Settings) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))

        def step_of(step: int) -> list[Step]:
            weights.append(weight.detach().clone())
            goal = torch.randn(2, generator=torch.Generator().manual_seed(step))
            return [Step((weight - goal).square().sum(), [])]

        def event(step: int) -> dict[str, float]:
            seen.append(weight.detach().clone())
            return {"seen": float(weight.detach()[0])}

        with checkpoint("test", str(settings.ema_decay)) as saved:
            curves = fit(
                "t", {"w": weight}, settings, step_of, saved, Silent(), [Event(10, event, True)]
            )
            saved.discard()
        assert [row["step"] for row in curves.events] == [0, 10, 20, 30]
        return weight.detach()

    last = run(SETTINGS)
    plain, weights = [*weights[1:], last], []
    seen.clear()
    averaged = run(Settings(**{**vars(SETTINGS), "ema_decay": decay}))
    for number, weight in enumerate(plain):
        keep = min(decay, (1 + number) / (10 + number))
        expected = keep * expected + (1 - keep) * weight.double()
    torch.testing.assert_close(averaged, expected.float())
    # The average is shown and kept, and never feeds back into training.
    torch.testing.assert_close(seen[-1], averaged)
    torch.testing.assert_close(torch.stack(weights[1:]), torch.stack(plain[:-1]))


def test_micro_batches_add_up_to_adamw_on_their_sum() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    optimiser = torch.optim.AdamW([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda n: (
            (n + 1) / 3 if n < 3 else 0.5 * (1 + torch.cos(torch.pi * torch.tensor(n - 3) / 27))
        ),
    )
    for step in range(30):
        optimiser.zero_grad()
        goal = torch.randn(2, generator=torch.Generator().manual_seed(step))
        (weight - goal).square().sum().backward()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimiser.step()
        schedule.step()
    ours, curves = train("sum", SETTINGS)
    torch.testing.assert_close(ours, weight.detach(), rtol=1e-5, atol=1e-6)
    assert len(curves.training) == 30


def test_lines_hold_the_rates_of_their_steps(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[int, dict[str, float]] = {}

    class Keeping(Silent):
        def metrics(self, values, step):  # type: ignore[no-untyped-def]
            found[step] = dict(values)

    meter = Meter(lambda step: Work(10, 1000, 250, 4e12), 2e12)
    lines = StepLog("finetune", 6, 4, Keeping(), meter, torch.device("cpu"))
    for step in range(1, 7):
        lines.step(step, float(step), 0.1, 0.5, 2.0, 0.01)
    assert sorted(found) == [4, 6]
    four = found[4]
    assert four["loss"] == 2.5
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
        "finetune 4/6: loss 2.5000, 5 images/s, 500 tokens/s, padding 25.0 %"
    )
    assert shown[0].endswith("4 s left")


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))

    def step_of(step: int) -> list[Step]:
        return [Step(weight.sqrt().sum(), ["isic/7"])]

    with (
        checkpoint("test", "gradient") as saved,
        pytest.raises(InputError, match="gradient of step 1 has norm inf on images isic/7"),
    ):
        fit("test", {"w": weight}, SETTINGS, step_of, saved, Silent())
    assert float(weight.detach()) == 0.0
