from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_generator import FINETUNE, corpus_row, write_corpus

from dermaflux.errors import InputError
from dermaflux.generators import finetune as stage
from dermaflux.generators.fit import Settings, Step, fit
from dermaflux.generators.training_images import captioned, select
from dermaflux.tracking import Silent

_KILLED = """
import os, signal, sys
from pathlib import Path
from dermaflux.generators.finetune import finetune
from dermaflux.params import Finetune
from dermaflux.tracking import Silent

class Fatal(Silent):
    def metrics(self, values, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

section = Finetune.model_validate_json(sys.argv[1])
root = Path(sys.argv[2])
finetune(section, 0, root / "corpus", root / "captions", root / "backbone", root / "killed",
         root / "killed.png", Fatal())
"""


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(here) -> None:
    run = [sys.executable, "-c", _KILLED, FINETUNE.model_dump_json(), str(here.root)]
    done = subprocess.run(run, cwd=here.root, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (here.root / "killed").exists()
    steps = []

    class Counting(Silent):
        def metrics(self, values, step):  # type: ignore[no-untyped-def]
            if "loss" in values:
                steps.append(step)

    for name, log in (("killed", Counting()), ("unbroken", Silent())):
        stage.finetune(FINETUNE, 0, *here.inputs(), here.root / name, here.root / "g.png", log)
    assert steps == [3, 4, 5]
    for file in os.listdir(here.root / "unbroken"):
        killed = (here.root / "killed" / file).read_bytes()
        assert killed == (here.root / "unbroken" / file).read_bytes(), file
    facts = json.loads((here.root / "killed" / stage.SETTINGS).read_text())
    assert facts["images"] == {"128": 7, "256": 2}
    assert facts["steps"] == 5
    assert facts["captions_cut"] == 0


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
    from dermaflux.checkpoints import checkpoint

    weight = torch.nn.Parameter(torch.ones(1))

    def step_of(step: int) -> Step:
        return Step((weight / (1 - step)).sum() * 1.0, [f"isic/{step}"])

    settings = Settings(
        steps=3, learning_rate=0.1, warmup_steps=0, maximum_gradient_norm=1.0, checkpoint_steps=9
    )
    with (
        checkpoint("test", "nonfinite") as saved,
        pytest.raises(InputError, match="step 2 is inf on images isic/1"),
    ):
        fit("test", {"weight": weight}, settings, step_of, saved, Silent())


def test_low_precision_and_gradient_checkpointing_run_and_keep_an_fp32_adapter(here) -> None:
    from safetensors.torch import load_file

    changes = {"precision": "bf16", "gradient_checkpointing": True, "steps": 2, "scales": [128]}
    section = FINETUNE.model_copy(update=changes)
    output = here.root / "low"
    stage.finetune(section, 0, *here.inputs(), output, here.root / "low.png", Silent())
    weights = load_file(output / "pytorch_lora_weights.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert any(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name)
