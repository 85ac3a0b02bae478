"""The classifier that chooses synthetic images: what it sees, what it is, what it gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_corpus as toy

from dermaflux import paths
from dermaflux.classifiers import selector
from dermaflux.classifiers.data import training_set
from dermaflux.classifiers.model import network, program
from dermaflux.classifiers.train import Cell
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.generators.pool.selector import Selector
from dermaflux.params import Params, load
from dermaflux.validation import mixture_gate

pytestmark = pytest.mark.usefixtures("workspace")


def parameters(**changes: object) -> Params:
    raw = toy.parameters(**changes).model_dump(by_alias=True)
    raw["synthesize"] |= {"select": "uncertain"}
    raw["train"] |= {"architectures": ["resnext", "vit"], "seeds": [3, 0]}
    return load.parse(raw)


def ungated(params: Params, real: list[str], synthetic: list[str], rejected: list[str]) -> None:
    """Lets everything pass."""


def test_it_sees_what_the_arm_real_of_the_first_seed_trains_on_and_nothing_else() -> None:
    params = parameters(ratio=0.9)
    seen = selector.images(params, 3, mixture_gate.check)
    cell = training_set.load(params, 3, mixture_gate.check, ["real", "mixture", "more_real"])
    assert seen.of("real").digest() == cell.of("real").digest()
    assert seen.corpus.image_ids == cell.of("real").image_ids
    assert (len(seen.pool.labels), len(seen.validation.labels)) == (0, 0)


def scores(folder: Path) -> list[float]:
    """Of synthetic images, which it was never shown."""
    selected = Selector(folder)
    return [selected(pixels) for _, pixels in table.decoded(paths.SYNTHETIC)]


@pytest.mark.slow
def test_without_validation_and_test_images_it_is_the_same_last_epoch() -> None:
    """And the network of the arm `real` after its last epoch, trained by `train`'s own loop."""
    params = parameters()
    selector.run(params, mixture_gate.check)
    with_all = paths.SELECTOR_PROGRAM.read_bytes()
    found = scores(paths.SELECTOR_PROGRAM)
    facts = json.loads((paths.SELECTOR / "selector.json").read_text())
    assert (facts["architecture"], facts["seed"], facts["n_real"]) == ("resnext", 3, 60)
    assert facts["images"] == {"benign": 30, "malignant": 30}

    cell = Cell.open(params, "resnext", 3, mixture_gate.check)
    epochs: list[dict[str, torch.Tensor]] = []
    recipe = cell.recipe("real")
    score = recipe.scores

    def remember(net: torch.nn.Module, images: object) -> object:
        epochs.append({name: value.clone() for name, value in net.state_dict().items()})
        return score(net, images)  # type: ignore[arg-type]

    object.__setattr__(recipe, "scores", remember)
    object.__setattr__(cell, "recipe", lambda arm: recipe)
    from dermaflux.core.checkpoints import checkpoint
    from dermaflux.tracking.runs import Silent

    with checkpoint("test", "real") as saved:
        cell.fit("real", saved, Silent())
    net = network.build(cell.config)
    net.load_state_dict(epochs[params.train.epochs - 1])
    pixels = np.stack([image for _, image in table.decoded(paths.SYNTHETIC)])
    malignant = torch.from_numpy(network.probabilities(net, cell.config, pixels))
    entropy = torch.distributions.Bernoulli(probs=malignant).entropy() / np.log(2)
    assert found == pytest.approx(entropy.tolist(), abs=1e-5)
    assert np.std(found) > 1e-3

    for split in ("validation", "test"):
        for shard in table.shards(paths.CORPUS, split):
            shard.unlink()
    shutil.rmtree(Path(".dermaflux"))
    shutil.rmtree(paths.SELECTOR)
    selector.run(params, ungated)
    assert scores(paths.SELECTOR_PROGRAM) == found
    assert paths.SELECTOR_PROGRAM.read_bytes() == with_all


@pytest.mark.parametrize(
    ("name", "classes"),
    [("vit", ("benign", "malignant")), ("resnext", ("a", "b", "c"))],
)
def test_a_program_gives_the_probabilities_of_the_network(
    name: str, classes: Sequence[str]
) -> None:
    params = toy.parameters()
    torch.manual_seed(0)
    config = network.configure(params.train.models[name], toy.SIDE, classes)
    net = network.build(config).eval()
    program.save(net, config, Path("net.pt2"))
    pixels = np.random.default_rng(0).integers(0, 256, (5, toy.SIDE, toy.SIDE, 3), np.uint8)
    run = torch.export.load("net.pt2").module()
    found = np.concatenate(
        [run(torch.from_numpy(image[None])).detach().numpy() for image in pixels]
    )
    expected = network.probabilities(net, config, pixels)
    if len(classes) == 2:
        expected = np.stack([1 - expected, expected], axis=1)
    assert np.exp(found) == pytest.approx(expected, abs=1e-5)


def test_the_gate_and_a_small_split_stop_it_before_any_training() -> None:
    with pytest.raises(InputError, match="n_real 4000 needs 2000 malignant images"):
        selector.run(parameters(n_real=4000, ratio=0), mixture_gate.check)

    def refuse(params: Params, real: list[str], synthetic: list[str], rejected: list[str]) -> None:
        assert (len(real), synthetic, rejected) == (60, [], [])
        raise InputError("refused")

    with pytest.raises(InputError, match="refused"):
        selector.run(parameters(), refuse)
    assert not paths.SELECTOR.exists()


NONE = """
import sys
from dermaflux.classifiers import selector
from dermaflux.params.load import load
selector.run(load(), None)
print([name for name in ("torch", "timm", "pandas", "mlflow") if name in sys.modules])
"""


def test_where_nothing_is_chosen_nothing_is_loaded(workspace: Path) -> None:
    from ruamel.yaml import YAML

    with Path("params.yaml").open("w") as file:
        YAML(typ="safe").dump(toy.parameters().model_dump(by_alias=True), file)
    done = subprocess.run(
        [sys.executable, "-c", NONE], cwd=workspace, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert json.loads((paths.SELECTOR / "selector.json").read_text()) == {"select": "none"}
    assert [path.name for path in paths.SELECTOR.iterdir()] == ["selector.json"]
