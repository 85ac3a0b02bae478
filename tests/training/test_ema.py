"""The moving average against diffusers' EMAModel, and what a model holds before, in and after."""

from __future__ import annotations

import pytest
import torch
from diffusers.training_utils import EMAModel

from dermaflux.training.ema import MovingAverage


def weights() -> dict[str, torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"matrix": (3, 4), "vector": (4,), "scalar": ()}
    return {name: torch.nn.Parameter(torch.randn(s, generator=draw)) for name, s in shapes.items()}


def stir(parameters: dict[str, torch.nn.Parameter], number: int) -> None:
    draw = torch.Generator().manual_seed(100 + number)
    with torch.no_grad():
        for weight in parameters.values():
            weight.add_(torch.randn(weight.shape, generator=draw))


@pytest.mark.parametrize("decay", [0.4, 0.99])
def test_after_its_first_update_it_is_diffusers_average(decay: float) -> None:
    model = weights()
    average = MovingAverage(model, decay)
    stir(model, 0)
    average.update(0)
    reference = EMAModel(model.values(), decay=decay)
    reference.shadow_params = [value.clone() for value in average.values.values()]
    reference.optimization_step = 1  # its first update would replace the average: decay 0, not 0.1
    for number in range(1, 30):
        stir(model, number)
        average.update(number)
        reference.step(model.values())
        assert reference.cur_decay_value == pytest.approx(min(decay, (1 + number) / (10 + number)))
    for value, expected in zip(average.values.values(), reference.shadow_params, strict=True):
        torch.testing.assert_close(value, expected)


def test_the_first_update_remembers_a_tenth_of_the_start() -> None:
    model = weights()
    start = {name: weight.detach().clone() for name, weight in model.items()}
    average = MovingAverage(model, 0.99)
    stir(model, 0)
    average.update(0)
    for name, value in average.values.items():
        torch.testing.assert_close(value, 0.1 * start[name] + 0.9 * model[name].detach())


def test_the_model_holds_the_average_inside_the_block_and_for_good_at_the_end() -> None:
    model = weights()
    average = MovingAverage(model, 0.9)
    stir(model, 0)
    average.update(0)
    trained = {name: weight.detach().clone() for name, weight in model.items()}
    averaged = {name: value.clone() for name, value in average.values.items()}

    def holds(expected: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(model[name], value) for name, value in expected.items())

    def interrupted() -> None:
        with average.in_place():
            assert holds(averaged)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert holds(trained)
    resumed = MovingAverage(model, 0.9)
    resumed.load(averaged)
    resumed.leave_in_model()
    assert holds(averaged)
