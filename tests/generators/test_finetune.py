from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from small_generator import FINETUNE, LORA, RUNTIME, corpus_row, write_corpus

from dermaflux.core.distributed import Processes
from dermaflux.errors import InputError
from dermaflux.generators.data import images
from dermaflux.generators.data.images import captioned, select
from dermaflux.generators.flux_lora.training import sharding
from dermaflux.generators.protocol import FACTS
from dermaflux.tracking.runs import Silent
from dermaflux.training.fit import fit
from dermaflux.training.protocol import FunctionObjective, Step
from dermaflux.training.state import Settings


def test_a_checkpoint_holds_the_adapter_and_never_the_base(here, capsys) -> None:
    class Stop(Silent):
        def metrics(self, values, step):  # type: ignore[no-untyped-def]
            if "loss" in values and step == 3:
                raise KeyboardInterrupt

    settings = LORA.model_copy(update={"ema_decay": 0.5})
    with pytest.raises(KeyboardInterrupt):
        here.train("stopped", settings=settings, log=Stop())
    (file,) = (here.root / ".dermaflux" / "checkpoints" / "finetune").glob("*/state.pt")
    state = torch.load(file, weights_only=True)
    assert state["step"] == 2
    adapter = sum(weight.numel() for weight in state["weights"].values())
    assert all("lora_" in name for name in (*state["weights"], *state["average"]))
    # Weights, average and two moments in fp32, and some room.
    assert file.stat().st_size < 4 * 4 * adapter + 150_000
    facts = json.loads((here.train("stopped", settings=settings) / FACTS).read_text())
    assert facts["images"] == {"128": 7, "256": 2}
    assert (facts["steps"], facts["captions_cut"], facts["ema_decay"]) == (5, 0, 0.5)
    assert set(facts) >= {"validation_loss_128", "prompt_padding", "base_dtype", "backbone"}
    assert re.fullmatch(
        r"finetune: LoRA of rank 2 on attention layers, [\d,]+ trainable parameters, base in fp32; "
        r"5 steps on 9 images, loss \d\S*, validation loss \d\S*; in .*/stopped",
        capsys.readouterr().out.splitlines()[-1],
    )


def test_only_training_images_of_the_scales_are_taken_half_of_each_class(here) -> None:
    rows = captioned(here.corpus, here.captions)
    samples = select(rows, [128], 4, 0)
    assert sorted(sample.label for sample in samples) == ["benign"] * 2 + ["malignant"] * 2
    assert {sample.scale for sample in samples} == {128}
    assert "phantom/009" not in set(rows["image_id"])
    assert select(rows.iloc[::-1], [128], 4, 0) == samples
    with pytest.raises(InputError, match=r"\[512\] leave no benign"):
        select(rows, [512], 0, 0)


def test_the_validation_split_trains_too_where_it_is_named(here) -> None:
    section = FINETUNE.model_copy(update={"validation_images": 0})
    both = section.model_copy(update={"splits": ["train", "validation"]})
    few, more = (images.read(each, 0, here.corpus, here.captions) for each in (section, both))
    added = {s.image_id for s in more.samples} - {s.image_id for s in few.samples}
    assert added == {"phantom/010", "phantom/012", "phantom/013"}
    assert len(more.samples) == len(few.samples) + 3
    assert more.samples == sorted(more.samples, key=lambda sample: sample.image_id)
    assert not {"phantom/009"} & {sample.image_id for sample in more.samples}


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

    output = here.train(
        "low",
        settings=LORA.model_copy(update={"base_dtype": "bf16", "steps": 2}),
        # Two images: a processor without bf16 takes most of its time to encode and sample them.
        section=FINETUNE.model_copy(update={"scales": [128], "maximum_images": 2}),
        runtime=RUNTIME.model_copy(update={"gradient_checkpointing": "full"}),
    )
    weights = load_file(output / "pytorch_lora_weights.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert any(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize(
    "change", [{"base_dtype": "nf4"}, {"base_dtype": "fp8"}, {"compile": True}]
)
def test_what_a_sharded_base_cannot_have_is_refused(change: dict[str, object]) -> None:
    settings = LORA.model_copy(update=change)
    sharding.check(settings, Processes(world=2))
    with pytest.raises(InputError, match=f"finetune.flux_lora.{next(iter(change))}"):
        sharding.check(settings, Processes(world=2, sharded=True))


def test_micro_batches_that_processes_cannot_share_are_refused(here) -> None:
    with pytest.raises(InputError, match="micro_batches is 2, which 3 processes cannot"):
        here.train("odd", processes=Processes(1, 3))
