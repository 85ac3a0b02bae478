from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_generator import FINETUNE, corpus_row, write_corpus

from dermaflux.errors import InputError
from dermaflux.generators import finetune as stage
from dermaflux.generators.data.images import captioned, select
from dermaflux.generators.flux_lora.training import sharding
from dermaflux.params.load import load
from dermaflux.tracking.runs import Silent
from dermaflux.training.distributed import Processes
from dermaflux.training.fit import fit
from dermaflux.training.protocol import FunctionObjective, Step
from dermaflux.training.state import Settings

_KILLED = """
import os, signal, sys
from pathlib import Path
from dermaflux.generators.finetune import finetune
from dermaflux.params import Finetune
from dermaflux.tracking.runs import Silent

class Fatal(Silent):
    def metrics(self, values, step):
        if "loss" in values and step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

section = Finetune.model_validate_json(sys.argv[1])
root = Path(sys.argv[2])
finetune(section, 0, root / "corpus", root / "captions", root / "backbone", root / "killed",
         root / "killed.png", Fatal())
"""


@pytest.mark.slow
def test_a_run_killed_at_any_step_continues_to_the_same_bytes(here) -> None:
    """Also across parameters that change no result; into a second epoch; with a moving average."""
    section = FINETUNE.model_copy(update={"steps": 7, "ema_decay": 0.9})
    fatal = random.SystemRandom().randint(3, 7)
    print(f"killed at step {fatal}")
    run = [sys.executable, "-c", _KILLED, section.model_dump_json(), str(here.root), str(fatal)]
    done = subprocess.run(run, cwd=here.root, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (here.root / "killed").exists()
    (file,) = (here.root / ".dermaflux" / "checkpoints" / "finetune").glob("*/state.pt")
    state = torch.load(file, weights_only=True)
    assert state["step"] == (fatal - 1) // 2 * 2
    adapter = sum(weight.numel() for weight in state["weights"].values())
    assert all("lora_" in name for name in (*state["weights"], *state["average"]))
    # Weights, average and two moments in fp32, and some room: never the frozen base.
    assert file.stat().st_size < 4 * 4 * adapter + 150_000
    steps = []

    class Counting(Silent):
        def metrics(self, values, step):  # type: ignore[no-untyped-def]
            if "loss" in values:
                steps.append(step)

    changes = {
        "checkpoint_steps": 3, "grid_steps": 5, "gradient_checkpointing": "full",
        "text_cache": True,
    }  # fmt: skip
    assert changes.keys() <= stage.CHANGE_NO_RESULT
    other = section.model_copy(update=changes)
    for name, one, log in (("killed", other, Counting()), ("unbroken", section, Silent())):
        stage.finetune(one, 0, *here.inputs(), here.root / name, here.root / "g.png", log)
    assert steps == list(range(state["step"] + 1, 8))
    for name in os.listdir(here.root / "unbroken"):
        killed = (here.root / "killed" / name).read_bytes()
        assert killed == (here.root / "unbroken" / name).read_bytes(), name
    facts = json.loads((here.root / "killed" / stage.SETTINGS).read_text())
    assert facts["images"] == {"128": 7, "256": 2}
    assert facts["steps"] == 7
    assert facts["captions_cut"] == 0
    assert facts["ema_decay"] == 0.9
    assert set(facts) >= {"validation_loss", "validation_loss_128", "text_policy", "base_dtype"}


def test_the_report_of_a_run_without_training_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = load(Path(__file__).parents[2] / "params.yaml")
    synthesize = params.synthesize.model_copy(update={"folder": "released"})
    stage.run(params.model_copy(update={"generator": "folder", "synthesize": synthesize}))
    for folder in (stage.paths.GENERATOR, stage.GRID.parent):
        assert json.loads((folder / stage.SETTINGS).read_text())["folder"] == "released"


def test_only_training_images_of_the_scales_are_taken_half_of_each_class(here) -> None:
    rows = captioned(here.corpus, here.captions)
    samples = select(rows, [128], 4, 0)
    assert sorted(one.label for one in samples) == ["benign"] * 2 + ["malignant"] * 2
    assert {one.scale for one in samples} == {128}
    assert "phantom/009" not in set(rows["image_id"])
    assert select(rows.iloc[::-1], [128], 4, 0) == samples
    with pytest.raises(InputError, match=r"\[512\] leave no benign"):
        select(rows, [512], 0, 0)


def test_a_missing_caption_is_named(here, tmp_path: Path) -> None:
    _, captions = write_corpus(tmp_path, [corpus_row(0, 128)])
    with pytest.raises(InputError, match="phantom/001 have no caption"):
        captioned(here.corpus, captions)


def test_a_loss_that_is_not_finite_names_its_images(here) -> None:
    from dermaflux.core.checkpoints import checkpoint

    weight = torch.nn.Parameter(torch.ones(1))

    def step_of(step: int) -> list[Step]:
        return [Step((weight / (1 - step)).sum() * 1.0, [f"isic/{step}"])]

    settings = Settings(
        steps=3, learning_rate=0.1, warmup_steps=0, maximum_gradient_norm=1.0, checkpoint_steps=9
    )
    with (
        checkpoint("test", "nonfinite") as saved,
        pytest.raises(InputError, match="step 2 is inf on images isic/1"),
    ):
        fit("test", FunctionObjective({"weight": weight}, step_of), settings, saved, Silent())


def test_low_precision_and_gradient_checkpointing_run_and_keep_an_fp32_adapter(here) -> None:
    from safetensors.torch import load_file

    changes = {
        "base_dtype": "bf16", "gradient_checkpointing": "full", "steps": 2, "scales": [128],
    }  # fmt: skip
    section = FINETUNE.model_copy(update=changes)
    output = here.root / "low"
    stage.finetune(section, 0, *here.inputs(), output, here.root / "low.png", Silent())
    weights = load_file(output / "pytorch_lora_weights.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert any(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize(
    "change", [{"base_dtype": "nf4"}, {"base_dtype": "fp8"}, {"compile": True}]
)
def test_what_a_sharded_base_cannot_have_is_refused(change: dict[str, object]) -> None:
    section = FINETUNE.model_copy(update=change)
    sharding.check(section, Processes(world=2))
    with pytest.raises(InputError, match=f"finetune.{next(iter(change))}"):
        sharding.check(section, Processes(world=2, sharded=True))


def test_micro_batches_that_processes_cannot_share_are_refused(here) -> None:
    output = here.root / "odd"
    with pytest.raises(InputError, match="micro_batches is 2, which 3 processes cannot"):
        stage.finetune(
            FINETUNE, 0, *here.inputs(), output, here.root / "odd.png", Silent(), Processes(1, 3)
        )
