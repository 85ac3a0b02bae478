"""The loop against torch's own optimiser, schedule and average, and against itself when killed."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from timm.optim import param_groups_weight_decay

from dermaflux.core.checkpoints import Checkpoint, checkpoint
from dermaflux.errors import InputError
from dermaflux.tracking.runs import Silent
from dermaflux.training.curves import Curves
from dermaflux.training.fit import Event, fit
from dermaflux.training.protocol import FunctionObjective, Step
from dermaflux.training.state import Settings, TrainingState

SETTINGS = Settings(
    steps=30, learning_rate=0.1, warmup_steps=3, maximum_gradient_norm=1.0, checkpoint_steps=7,
    log_steps=10,
)  # fmt: skip


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


@pytest.fixture
def saved() -> Iterator[Checkpoint]:
    with checkpoint("test", "key") as saved:
        yield saved


class Quadratic:
    """Half the squared distance to a random goal per step, in two micro-batches."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        self.seen: list[torch.Tensor] = []

    def weights(self) -> dict[str, torch.nn.Parameter]:
        return {"w": self.weight}

    def parts(self, step: int) -> Iterator[Step]:
        self.seen.append(self.weight.detach().clone())
        for _ in range(2):
            yield Step(0.5 * (self.weight - goal(step)).square().sum(), [str(step)])

    def work(self, step: int) -> None:
        return None


def goal(step: int) -> torch.Tensor:
    return torch.randn(2, generator=torch.Generator().manual_seed(step))


def test_micro_batches_add_up_to_adamw_on_their_sum(saved: Checkpoint) -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    optimiser = torch.optim.AdamW([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda n: (n + 1) / 3 if n < 3 else 0.5 * (1 + math.cos(math.pi * (n - 3) / 27))
    )
    losses = []
    for step in range(30):
        optimiser.zero_grad()
        loss = (weight - goal(step)).square().sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    objective = Quadratic()
    curves = fit("test", objective, SETTINGS, saved, Silent())
    torch.testing.assert_close(objective.weight, weight, rtol=1e-5, atol=1e-6)
    assert [row["step"] for row in curves.training] == list(range(1, 31))
    assert [row["loss"] for row in curves.training] == pytest.approx(losses, rel=1e-5)


def test_the_average_is_that_of_the_weights_on_the_way(saved: Checkpoint) -> None:
    decay = 0.8
    events: list[torch.Tensor] = []

    def run(settings: Settings, part: str) -> Quadratic:
        objective = Quadratic()

        def event(step: int) -> dict[str, float]:
            events.append(objective.weight.detach().clone())
            return {"first": float(objective.weight.detach()[0])}

        curves = fit(
            "t", objective, settings, saved.part(part), Silent(), [Event(10, event, at_start=True)]
        )
        assert [row["step"] for row in curves.events] == [0, 10, 20, 30]
        return objective

    plain = run(SETTINGS, "plain")
    trained = [*plain.seen[1:], plain.weight.detach()]
    averaged = run(replace(SETTINGS, ema_decay=decay), "averaged")
    expected = torch.tensor([3.0, -2.0], dtype=torch.float64)
    for number, weight in enumerate(trained):
        remembered = min(decay, (1 + number) / (10 + number))
        expected = remembered * expected + (1 - remembered) * weight.double()
    torch.testing.assert_close(averaged.weight.detach(), expected.float())
    # The average is shown and kept, and never feeds back into training.
    torch.testing.assert_close(events[-1], averaged.weight.detach())
    torch.testing.assert_close(torch.stack(averaged.seen), torch.stack(plain.seen))


def test_groups_of_timm_decay_matrices_only_and_scale_their_rates(saved: Checkpoint) -> None:
    def network() -> torch.nn.Sequential:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))

    def loss(model: torch.nn.Module, step: int) -> torch.Tensor:
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        return model(inputs).square().mean()  # type: ignore[no-any-return]

    def groups(model: torch.nn.Module) -> list[dict[str, object]]:
        spared, decayed = param_groups_weight_decay(model, 0.5)
        return [{**spared, "lr_scale": 0.1}, decayed]

    reference = network()
    flat, matrices = groups(reference)
    optimiser = torch.optim.AdamW(
        [{**flat, "lr": 0.01}, {**matrices, "lr": 0.1}], betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=10)
    for step in range(10):
        optimiser.zero_grad()
        loss(reference, step).backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model = network()
    settings = replace(SETTINGS, steps=10, warmup_steps=0, parameter_groups=groups(model))
    objective = FunctionObjective(
        dict(model.named_parameters()), lambda step: [Step(loss(model, step), [])]
    )
    fit("test", objective, settings, saved, Silent())
    for weight, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="hold 1 weights"):
        fit(
            "test", objective, replace(settings, parameter_groups=groups(model)[1:]), saved,
            Silent(),
        )  # fmt: skip


def test_autocast_covers_the_forward_pass_of_each_micro_batch_only(saved: Checkpoint) -> None:
    layer = torch.nn.Linear(4, 4)
    dtypes = []

    def parts(step: int) -> Iterator[Step]:
        for _ in range(2):
            outputs = layer(torch.ones(2, 4))
            dtypes.append(outputs.dtype)
            outputs.register_hook(lambda _: dtypes.append(torch.is_autocast_enabled("cpu")))
            yield Step(outputs.float().square().mean(), [])

    settings = replace(SETTINGS, steps=1, autocast=torch.bfloat16)
    fit("test", FunctionObjective(dict(layer.named_parameters()), parts), settings, saved, Silent())
    assert dtypes == [torch.bfloat16, False] * 2
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


RUN = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_fit import KILLED_SETTINGS, Event, Quadratic, Silent, checkpoint, fit

class Fatal(Silent):
    def metrics(self, values, step):
        if "loss" in values and step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

with checkpoint("test", "key") as saved:
    fit("test", Quadratic(), KILLED_SETTINGS, saved, Fatal(), [Event(5, lambda n: {"n": n / 3})])
"""
KILLED_SETTINGS = replace(SETTINGS, ema_decay=0.9, log_steps=1, weight_decay=0.01)


def continued(saved: Checkpoint) -> tuple[Quadratic, Curves]:
    objective = Quadratic()
    events = [Event(5, lambda n: {"n": n / 3})]
    return objective, fit("test", objective, KILLED_SETTINGS, saved, Silent(), events)


def test_a_killed_run_continues_to_the_same_bits_and_curves(root: Path) -> None:
    command = [sys.executable, "-c", RUN, str(Path(__file__).parent), "17"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    folder = root / ".dermaflux" / "checkpoints" / "test" / "key"
    for name in ("training", "events"):
        with (folder / f"{name}.jsonl").open("a") as file:
            # Whatever of the rows after the checkpoint reached the disk, the last one in part.
            file.write('{"step": 15, "loss": 9.0, "learning_rate": 1.0}\n{"step": 16, "lo')
    with checkpoint("test", "key") as saved:
        resumed, curves = continued(saved)
        assert len(resumed.seen) == 30 - 14
    with checkpoint("test", "unbroken") as saved:
        unbroken, expected = continued(saved)
    assert torch.equal(resumed.weight, unbroken.weight)
    assert curves == expected
    assert [row["step"] for row in curves.events] == [5, 10, 15, 20, 25, 30]


def test_a_run_whose_curves_are_lost_starts_from_its_first_step(
    saved: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    _, expected = continued(saved)
    saved.file("training.jsonl").write_bytes(b"")
    objective, curves = continued(saved)
    assert "training.jsonl has lost rows that its checkpoint counts on" in capsys.readouterr().out
    assert len(objective.seen) == 30
    assert curves == expected


def test_a_checkpoint_does_not_grow_with_the_steps(saved: Checkpoint) -> None:
    sizes = {}
    for steps in (100, 1000):
        part = saved.part(str(steps))
        curves = fit("test", Quadratic(), replace(SETTINGS, steps=steps), part, Silent())
        assert len(curves.training) == steps
        sizes[steps] = part.file("state.pt").stat().st_size
        rows = part.file("training.jsonl").read_text().splitlines()
        assert [json.loads(row) for row in rows] == curves.training
    assert abs(sizes[1000] - sizes[100]) <= 64


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched(
    saved: Checkpoint,
) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))

    def parts(step: int) -> list[Step]:
        return [Step(weight.sqrt().sum(), ["isic/7"])]

    with pytest.raises(InputError, match="gradient of step 1 has norm inf on images isic/7"):
        fit("test", FunctionObjective({"w": weight}, parts), SETTINGS, saved, Silent())
    assert float(weight.detach()) == 0.0


def test_a_stored_average_of_another_model_starts_the_training_over(saved: Checkpoint) -> None:
    weights = {"weight": torch.nn.Parameter(torch.tensor([3.0, -2.0]))}
    settings = replace(SETTINGS, ema_decay=0.8)
    first = TrainingState("test", weights, settings, saved, True)
    weights["weight"].grad = torch.ones(2)
    first.update(0.1)
    first.append("training", {"step": 1.0})
    first.save()
    first.close()
    state = saved.load()
    assert state is not None
    saved.save(state | {"average": {"weight": torch.zeros(5)}})
    again = TrainingState("test", weights, settings, saved, True)
    again.load()
    assert again.step == 0
    assert not again.optimiser.state
    assert again.curves().training == []
    again.close()
