"""What every generator promises to the stages, whatever its name.

What only a model that is trained or sampled can promise is skipped for the others, with the reason.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import killed_run
import numpy as np
import pytest
from generator_cases import CASES, POOL
from planted_secrets import found_below, found_in
from small_generator import FINETUNE, RUNTIME, Workspace

from dermaflux.core import table
from dermaflux.core.seeds import derived_seed
from dermaflux.errors import InputError
from dermaflux.generators import finetune, registry, reproduce
from dermaflux.generators.protocol import FACTS, Collection, Condition, Generator
from dermaflux.params.choices import GENERATORS
from dermaflux.tracking.runs import Silent

NAMES = pytest.mark.parametrize("name", GENERATORS)


def test_every_registered_generator_is_tested() -> None:
    assert CASES.keys() == GENERATORS.keys(), "add an entry to tests/fixtures/generator_cases.py"


@NAMES
def test_settings_say_whether_the_sampler_reads_captions(name: str, tmp_path: Path) -> None:
    settings = CASES[name].sampling(tmp_path)
    assert settings.reads_captions == ("captions" in sampling(name).needs)


def trained(name: str) -> None:
    if not registry.trainer(name).trains(CASES[name].training):
        pytest.skip(f"{name} trains nothing: there are no steps, and no checkpoint to resume")


def sampling(name: str) -> Generator:
    generator = registry.generator(name)
    if isinstance(generator, Collection):
        pytest.skip(f"{name} samples nothing: its images have no prompt, seed or batch")
    return generator


class Counting(Silent):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def metrics(self, values, step):  # type: ignore[no-untyped-def]
        if "loss" in values:
            self.steps.append(step)


@NAMES
@pytest.mark.slow
def test_a_run_killed_at_any_step_continues_to_the_same_bytes(here: Workspace, name: str) -> None:
    """Also across settings of the runtime; into a second epoch; with a moving average.

    Secrets of its environment are in nothing that the killed run leaves.
    """
    trained(name)
    fatal = random.SystemRandom().randint(3, 7)
    print(f"killed at step {fatal}")
    settings = CASES[name].training
    run = here.training_run(name, settings, grid=f"{name}-killed.png")
    output = here.root / f"{name}-killed"
    printed = killed_run.kill(name, run, output, here.root, fatal)
    checkpoints = here.root / ".dermaflux" / "checkpoints"
    assert any(checkpoints.rglob("state.pt"))
    assert found_below(checkpoints) == found_in(printed.encode()) == []
    other = RUNTIME.model_copy(
        update={
            "checkpoint_steps": 3, "grid_steps": 5, "gradient_checkpointing": "full",
            "text_cache": True,
        }
    )  # fmt: skip
    log = Counting()
    section = FINETUNE.model_copy(update={"validation_steps": 3})
    here.train(
        output.name, name, settings=settings, runtime=other, log=log, section=section,
        grid=f"{name}-killed.png",
    )  # fmt: skip
    assert log.steps == list(range((fatal - 1) // 2 * 2 + 1, 8))
    unbroken = here.train(f"{name}-unbroken", name, settings=settings, grid=f"{name}-unbroken.png")
    files = sorted(path.name for path in unbroken.iterdir())
    assert files == sorted(path.name for path in output.iterdir())
    for file in files:
        assert (output / file).read_bytes() == (unbroken / file).read_bytes(), file
    grids = [(here.root / f"{name}-{which}.png").read_bytes() for which in ("killed", "unbroken")]
    assert grids[0] == grids[1]


@NAMES
def test_two_steps_change_the_weights_and_are_written_down(here: Workspace, name: str) -> None:
    trained(name)
    generator, identities = sampling(name), []
    for steps in (1, 2):
        settings = CASES[name].training.model_copy(update={"steps": steps})
        folder = here.train(f"{name}-{steps}", name, settings=settings)
        facts = json.loads((folder / FACTS).read_text())
        assert (facts["generator"], facts["steps"]) == (name, steps)
        assert facts["images_per_class"] == {"benign": 6, "malignant": 3}
        assert facts["validation_loss"] > 0
        assert facts["summary"]
        losses = np.genfromtxt(folder / finetune.CURVE, delimiter=",", names=True)["loss"]
        assert np.isfinite(losses).all()
        assert losses.size == steps
        identities.append(generator.weights_id(here.models(folder)))
    assert identities[0] != identities[1]


@NAMES
def test_what_needs_no_training_says_why(here: Workspace, name: str) -> None:
    trainer, settings = registry.trainer(name), CASES[name].training
    if trainer.trains(settings):
        pytest.skip(f"{name} trains; its import of finished weights has tests of its own")
    run = here.training_run(name, settings, grid="report/grid.png")
    finetune.install(name, trainer, run, here.root / f"{name}-installed")
    for folder in (here.root / f"{name}-installed", run.grid.parent):
        facts = json.loads((folder / FACTS).read_text())
        assert facts["generator"] == name
        assert facts["summary"].startswith("None: ")


@NAMES
def test_an_image_does_not_depend_on_its_batch(here: Workspace, pools, name: str) -> None:  # type: ignore[no-untyped-def]
    generator = sampling(name)
    models = here.models(pools(name).generator)
    settings = CASES[name].sampling(models.generator).model_dump()
    sampler = generator.open(models, settings)
    conditions = [
        Condition("benign", "This is an image containing a benign lesion.", 128, derived_seed(n))
        for n in range(4)
    ]
    assert len(set(sampler.groups(conditions))) == 1
    together = sampler(conditions)
    assert together.shape == (4, 128, 128, 3)
    assert together.dtype == np.uint8
    backwards = sampler(conditions[::-1])[::-1]
    for index, condition in enumerate(conditions):
        alone = sampler([condition])[0]
        for other in (together, backwards):
            assert np.abs(alone.astype(int) - other[index].astype(int)).max() <= 1
    for index in range(1, 4):  # else nothing above could differ
        assert np.abs(together[0].astype(int) - together[index].astype(int)).mean() > 1


@NAMES
@pytest.mark.usefixtures("one_thread")
def test_reproduce_is_bit_identical_in_the_batch_and_close_alone(  # type: ignore[no-untyped-def]
    here: Workspace, pools, name: str
) -> None:
    pool = pools(name)
    models = here.models(pool.generator)
    rows = table.metadata(pool.folder)
    if isinstance(registry.generator(name), Collection):
        with pytest.raises(InputError, match="carries no prompt and no seed"):
            reproduce.sample_again(rows["image_id"].iloc[0], pool.folder, models)
        return
    for image_id in (rows["image_id"].iloc[2], rows["image_id"].iloc[-1]):
        again, stored = reproduce.sample_again(image_id, pool.folder, models)
        assert (again == stored).all()
        assert ((stored > 0) & (stored < 255)).mean() > 0.5  # else no pixel could differ
    shared = rows[rows["batch"].duplicated(keep=False)]["image_id"].iloc[0]
    again, stored = reproduce.sample_again(shared, pool.folder, models, alone=True)
    assert np.abs(again.astype(int) - stored.astype(int)).max() <= 1


@NAMES
def test_the_manifest_is_complete_and_opens_the_sampler_again(  # type: ignore[no-untyped-def]
    here: Workspace, pools, name: str
) -> None:
    pool = pools(name)
    rows = table.metadata(pool.folder)
    assert len(rows) == POOL.images
    assert rows["label"].value_counts().to_dict() == {"benign": 5, "malignant": 5}
    always = (
        *("image_id", "source", "licence", "modality", "label", "width", "height", "scale"),
        *("split", "sha256", "generator", "weights", "sampler_settings"),
    )
    assert rows[[*always]].notna().all(axis=None)
    assert rows["image_id"].is_unique
    assert rows["sha256"].is_unique
    assert set(rows["generator"]) == {name}
    (text,) = set(rows["sampler_settings"])
    settings = json.loads(text)
    assert table.settings_json(settings) == text
    generator = registry.generator(name)
    if isinstance(generator, Collection):
        return
    assert rows[["prompt", "seed", "batch"]].notna().all(axis=None)
    assert rows["seed"].is_unique
    for row in rows.itertuples():
        assert f"{row.label} lesion" in row.prompt
        for column in ("steps", "guidance"):  # null for a generator without them
            value = getattr(row, column)
            assert settings.get(column) == (None if np.isnan(value) else value)
    models = here.models(pool.generator)
    sampler = generator.open(models, settings)
    assert dict(sampler.settings) == settings
    others = {
        key: value + 1 if isinstance(value, int | float) else value
        for key, value in settings.items()
    }
    assert dict(generator.open(models, others).settings) == others
    assert sampler.provenance.weights == generator.weights_id(models) == rows["weights"].iloc[0]


@NAMES
def test_one_changed_byte_is_another_generator(  # type: ignore[no-untyped-def]
    here: Workspace, pools, name: str, tmp_path: Path
) -> None:
    pool, case = pools(name), CASES[name]
    before = table.metadata(pool.folder)["weights"].iloc[0]
    generator = registry.generator(name)

    def weights(folder: Path, output: str) -> str:
        if isinstance(generator, Collection):
            target = tmp_path / output
            generator.collect(POOL, case.sampling(folder), target, tmp_path / "report")
            return str(table.metadata(target)["weights"].iloc[0])
        return generator.weights_id(here.models(folder))

    changed = Path(shutil.copytree(pool.generator, tmp_path / "changed"))
    assert weights(changed, "copied") == before
    content = bytearray((changed / case.weight_file).read_bytes())
    content[-case.weight_byte] ^= 1
    (changed / case.weight_file).write_bytes(content)
    assert weights(changed, "other") != before
    if isinstance(generator, Collection):
        return
    with pytest.raises(InputError, match="was made with weights"):
        reproduce.sample_again("synthetic/000000", pool.folder, here.models(changed))
    with pytest.raises(InputError, match="run the stage `finetune`"):
        generator.weights_id(here.models(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="run the stage `finetune`"):
        generator.open(here.models(tmp_path / "nowhere"), {})


@NAMES
def test_equal_inputs_give_equal_shards(here: Workspace, pools, name: str) -> None:  # type: ignore[no-untyped-def]
    generator = registry.generator(name)
    pool, again = pools(name), here.root / f"{name}-again"
    if isinstance(generator, Collection):
        settings = CASES[name].sampling(pool.generator)
        generator.collect(POOL, settings, again, here.root / f"{name}-report")
    else:
        pytest.skip("test_synthesize compares an interrupted pool with an unbroken one")
    for path in sorted(pool.folder.iterdir()):
        assert (again / path.name).read_bytes() == path.read_bytes()
