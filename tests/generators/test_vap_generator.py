"""`vap` with real files: text towers, descriptions, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_uvit import SHAPE, UVIT, draw_uvit
from ruamel.yaml import YAML
from small_generator import Workspace
from torch import Tensor

from dermaflux.captions.text.label import label_sentence
from dermaflux.errors import InputError
from dermaflux.generators.data import images as training_images
from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.images import Sample, TrainingImages
from dermaflux.generators.protocol import FACTS, Condition, Models
from dermaflux.generators.vap.model import text, uvit, weights
from dermaflux.generators.vap.sampling.generator import GENERATOR
from dermaflux.generators.vap.training.text_cache import cache_text
from dermaflux.generators.vap.training.trainer import TRAINER
from dermaflux.params import load

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "sampler": "dpm_solver", "steps": 2, "guidance": 1.5, "solver_order": 2,
    "clip_sample_range": 1.5,
}  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lesion", "benign", "red"]


def biomedclip(folder: Path, pooler: str = "cls_last_hidden_state_pooler", **changes: Any) -> Path:
    """A folder with open_clip's files, whose text tower is a BERT of width 768, as BiomedCLIP's."""
    open_clip = pytest.importorskip("open_clip")
    from transformers import BertConfig, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast.from_pretrained(str(folder)).save_pretrained(folder)
    bert = BertConfig(
        vocab_size=len(WORDS), hidden_size=768, num_hidden_layers=1, num_attention_heads=12,
        intermediate_size=64, max_position_embeddings=256,
    )  # fmt: skip
    bert.save_pretrained(folder / "bert")
    tower = {
        "hf_model_name": str(folder / "bert"), "hf_tokenizer_name": "here", "hf_proj_type": "mlp",
        "hf_pooler_type": pooler, "context_length": 256, "hf_model_pretrained": False,
    }  # fmt: skip
    vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": tower}
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**copy.deepcopy(config))
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    config["text_cfg"] = tower | changes
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    )
    return folder


def test_biomedclips_tower_gives_a_state_for_each_of_256_tokens(tmp_path: Path) -> None:
    """The class token included, which open_clip leaves out of the tokens of one of its poolers."""
    folder = biomedclip(tmp_path / "clip", "cls_pooler")
    import open_clip

    tower = text.load(text.reference(str(folder), None, tmp_path), CPU)
    states = tower(["red benign lesion", ""])
    assert states.shape == (2, 256, 768)
    model = open_clip.create_model_from_pretrained(f"local-dir:{folder}", return_transform=False)
    model.eval()
    model.text.output_tokens = True
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(["red benign lesion"])
    with torch.no_grad():
        theirs = model.text(ids)[1]
        states_of_all = model.text.transformer(ids, (ids != 0).long()).last_hidden_state
    assert theirs.shape == (1, 255, 768)  # the trap
    torch.testing.assert_close(states[:1, 1:].float(), theirs, atol=3e-3, rtol=1e-3)
    torch.testing.assert_close(states[:1].float(), states_of_all, atol=3e-3, rtol=1e-3)
    assert tower.counts(["red " * 300]) == [302]
    long = tower(["red " * 300, "red " * 254 + "benign"])
    assert torch.equal(long[0], long[1])  # what comes after the limit is not read


def test_transformers_clip_and_the_backbones_are_the_same_tower(
    here: Workspace, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, CLIPTextModel

    folder = tmp_path / "clip"
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(here.backbone / part, folder / part)
    prompts = ["a red lesion", "", "a benign lesion " * 60]
    towers = [
        text.load(text.reference(name, None, here.backbone), CPU)
        for name in ("backbone", str(folder))
    ]
    assert towers[0].reference.identity == towers[1].reference.identity
    found = [tower(prompts) for tower in towers]
    assert torch.equal(*found)
    network: Any = CLIPTextModel
    network = network.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(str(folder / "tokenizer"))(
        prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        expected = network(ids).last_hidden_state
    torch.testing.assert_close(found[0].float(), expected, atol=3e-3, rtol=1e-3)
    alone = towers[0](prompts[1:2])
    assert torch.equal(alone[0], found[0][1])  # also bit by bit, whatever the batch


def test_descriptions_are_encoded_once_and_read_by_content(here: Workspace) -> None:
    tower = text.load(text.reference("backbone", None, here.backbone), CPU)
    run, asked = here.training_run(), list[int]()

    class Counting:
        network, reference, tokens, width = tower.network, tower.reference, 77, tower.width

        def __call__(self, prompts: list[str]) -> Tensor:
            asked.append(len(prompts))
            return tower(prompts)

    prompts = ["once", "twice", "never again"]
    for _ in range(2):
        source = cache_text(Counting(), prompts, run.processes)  # type: ignore[arg-type]
    assert asked == [3]
    assert torch.equal(source(prompts[::-1]), tower(prompts).flip(0))


@pytest.mark.parametrize(
    ("changes", "captions"),
    [
        ({"text": "captions"}, None),
        ({"text": "label", "variant": "released", "reconstruction_target": "joint"}, 2),
        ({"text": "none", "prototypes": 0}, 1),
    ],
)
def test_each_ablation_trains_and_is_written_down(
    here: Workspace, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], captions: Any
) -> None:
    settings = UVIT.model_copy(update={"steps": 2} | changes)
    folder = here.train(f"vap-{changes['text']}", "vap", settings=settings)
    printed, facts = capsys.readouterr().out, json.loads((folder / FACTS).read_text())
    trained = weights.load(folder, CPU)
    numbers = sum(weight.numel() for weight in trained.uvit.parameters())
    assert f"U-ViT of {numbers:,} parameters" in printed
    assert facts["trainable_parameters"] == numbers
    forward = uvit.forward_flop(trained.description.shape)
    assert f"2 steps of 4 images take {2 * 4 * 3 * forward / 1e15:.3g} PFLOP" in printed
    without = uvit.forward_flop(dataclasses.replace(trained.description.shape, prototypes=0))
    share = f"{(forward - without) / forward:.1%} of it for prototypes"
    assert (share in printed) == bool(settings.prototypes)
    header = (folder / "loss.csv").read_text().splitlines()[0]
    losses = np.genfromtxt(folder / "loss.csv", delimiter=",", names=True)
    if settings.prototypes:
        assert header == "step,loss,diffusion_loss,reconstruction_loss,learning_rate"
        total = losses["diffusion_loss"] + losses["reconstruction_loss"]
        np.testing.assert_allclose(losses["loss"], total, rtol=1e-6)
    else:
        assert header == "step,loss,learning_rate"
    if captions is not None:
        assert facts["descriptions"] == captions
    assert facts["text_shape"] == ([0, 0] if changes["text"] == "none" else [77, 64])
    sampler = GENERATOR.open(here.models(folder), SETTINGS)
    assert sampler([condition("benign", label_sentence("benign"))]).shape == (1, 128, 128, 3)


def test_long_descriptions_are_counted_and_said(
    here: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    images = training_images.read(
        here.training_run("vap", UVIT).section, 0, here.corpus, here.captions
    )
    samples = [dataclasses.replace(sample, caption="short") for sample in images.samples]
    for index in (0, 2):
        samples[index] = dataclasses.replace(samples[index], caption="a red lesion " * 60)
    changed = dataclasses.replace(images, samples=samples, held_out=[])
    training = TRAINER.prepare(here.training_run("vap", UVIT), changed)
    assert f"2 of {len(samples)} descriptions have more than 77 tokens" in capsys.readouterr().out
    folder = here.root / "vap-cut"
    folder.mkdir()
    assert training.save(folder)["descriptions_cut"] == 2


def condition(
    label: str, prompt: str = "red", diagnosis: str | None = None, scale: int = 128
) -> Condition:
    return Condition(label, prompt, scale, 5, diagnosis)


def test_class_and_description_both_decide_the_image(here: Workspace, tmp_path: Path) -> None:
    models = here.models(draw_uvit(here.backbone, tmp_path / "weights"))
    sampler = GENERATOR.open(models, SETTINGS)
    wanted = [
        condition("benign"),
        condition("benign", "a brown lesion with an irregular border"),
        condition("malignant"),
        condition("benign", diagnosis="nevus"),
    ]
    red, brown, malignant, same = sampler(wanted).astype(int)
    assert np.abs(red - brown).mean() > 0.5
    assert np.abs(red - malignant).mean() > 0.5
    assert np.abs(red - same).max() <= 1  # the diagnosis of a caption is not what is asked for
    nothing = condition("indeterminate", "")
    assert sampler.groups([nothing, *wanted[:1]]) == [(128, 1), (128, 0)]
    strong = GENERATOR.open(models, SETTINGS | {"guidance": 9.0})
    assert (strong([nothing]) == sampler([nothing])).all()


def test_what_was_not_trained_cannot_be_asked_for(here: Workspace, tmp_path: Path) -> None:
    path = DiffusionPath("flow", 0.00085, 0.012, "scaled_linear")
    folder = draw_uvit(here.backbone, tmp_path / "w", path, "diagnosis", ("melanoma", "nevus"))
    euler = SETTINGS | {"sampler": "euler"}
    sampler = GENERATOR.open(here.models(folder), euler)
    for wanted, message in (
        (condition("benign"), "without a diagnosis but the generator was trained on diagnoses"),
        (condition("benign", diagnosis="wart"), "'wart' is asked for but no training image"),
        (condition("benign", diagnosis="nevus", scale=256), "scale is 256 px and finetune.vap.sc"),
    ):
        with pytest.raises(InputError, match=message):
            sampler.groups([wanted])
    with pytest.raises(InputError, match="'dpm_solver' cannot sample a model with finetune.vap.p"):
        GENERATOR.open(here.models(folder), SETTINGS)


def test_another_tower_or_damage_is_refused(here: Workspace, tmp_path: Path) -> None:
    folder = draw_uvit(here.backbone, tmp_path / "weights")
    other = Path(shutil.copytree(here.backbone, tmp_path / "other"))
    config = json.loads((other / "text_encoder" / "config.json").read_text())
    (other / "text_encoder" / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(InputError, match="text tower .*, 77 tokens of width 64, and .* is .*; run"):
        GENERATOR.open(Models(folder, other), SETTINGS)
    file = folder / weights.FILE.name
    content = file.read_bytes()
    for bad in (content[: len(content) // 2], b"", content.replace(b'\\"epsilon', b'\\"epsilom')):
        file.write_bytes(bad)
        with pytest.raises(InputError, match="is damaged"):
            GENERATOR.open(here.models(folder), SETTINGS)([condition("benign")])


def test_a_run_that_cannot_work_stops_before_it_begins(here: Workspace, tmp_path: Path) -> None:
    samples = [
        Sample(f"x/{n}", "", label, 128, "") for n, label in enumerate(("benign", "malignant"))
    ]
    images = TrainingImages(samples, [], 0, 0)
    short = biomedclip(tmp_path / "short", context_length=300)
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "config.json").write_text("{")
    for changes, message in (
        ({"patch": 3}, "latents of 16 px, which patches of 3 do not divide"),
        ({"condition": "diagnosis"}, "set finetune.vap.condition to malignancy"),
        ({"text_encoder": str(tmp_path)}, "holds no text encoder .config.json is not there."),
        ({"text_encoder": str(torn)}, "cannot be opened"),
        ({"text_encoder": str(short)}, "asks for 300 tokens and its text tower has .* for 256"),
    ):
        run = here.training_run("vap", UVIT.model_copy(update=changes))
        with pytest.raises(InputError, match=message) as caught:
            TRAINER.prepare(run, images)
        assert "\n" not in str(caught.value)


def test_open_clip_that_is_not_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r"not installed; run `pip install 'dermaflux\[vap\]'`"):
        text.load(text.reference(str(tmp_path), None, tmp_path), CPU)


def of_vap() -> dict[str, Any]:
    raw: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    return raw | {"generator": "vap"}


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("finetune", "heads", 5, "width 192 is not a multiple of heads 5"),
        ("finetune", "depth", 7, "should be a multiple of 2"),
        ("finetune", "prototypes", -1, "greater than or equal to 0"),
        ("finetune", "variant", "released", "is 'detached' and the variant 'released' learns its"),
        ("finetune", "micro_batches", 3, "finetune.vap.batch 16 is not a multiple of micro_ba"),
        ("finetune", "beta_start", 0.5, "finetune.vap.beta_start 0.5 is greater than beta_end"),
        ("finetune", "condition", "diagnosis", "is 'malignancy' and finetune.vap.condition"),
        ("finetune", "text", "label", "prompt_source is 'captions' and finetune.vap.text 'label'"),
        ("finetune", "scale", 256, "synthesize.scale is 128 px and finetune.vap.scale 256"),
        ("synthesize", "sampler", "dpm_solver", "'dpm_solver' cannot sample .* 'flow'; choose eul"),
        ("synthesize", "solver_order", 4, "less than or equal to 3"),
    ],
)
def test_parameters_that_contradict_each_other(
    section: str, key: str, value: Any, message: str
) -> None:
    raw = of_vap()
    assert load.parse(raw).generator == "vap"
    raw[section]["vap"][key] = value
    with pytest.raises(InputError, match=message):
        load.parse(raw)


def test_the_released_variant_needs_prototypes() -> None:
    released = {"variant": "released", "reconstruction_target": "joint"}
    UVIT.model_copy(update=released).check_chosen()
    with pytest.raises(ValueError, match="through prototypes alone and prototypes is 0"):
        UVIT.model_copy(update=released | {"prototypes": 0}).check_chosen()


def test_inputs_that_are_not_there() -> None:
    for changes, message in (
        ({"latents": "org/vae"}, "as a hub repository, has no finetune.vap.latents_revision"),
        ({"text_encoder": "org/clip"}, "has no finetune.vap.text_encoder_revision"),
        ({"text_encoder": "hf-hub:org/clip"}, "'org/clip' .* has no finetune.vap.text_encoder_rev"),
    ):
        settings = UVIT.model_copy(update=changes)
        with pytest.raises(ValueError, match=message):
            settings.check_inputs()
    UVIT.check_inputs()
    assert UVIT.model_copy(update={"text_encoder": "x", "text": "none"}).input_paths() == {
        "latents": None,
        "text_encoder": None,
    }
    assert SHAPE.text_width == 64
