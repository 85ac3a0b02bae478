"""Every way in which people write a timm model's name, against timm itself; and bad options."""

from __future__ import annotations

import huggingface_hub
import pytest
import timm
import torch
import toy_corpus as toy
from timm.models import save_for_hf

from dermaflux.classifiers.model import network, pretrained
from dermaflux.classifiers.model.network import build, configure
from dermaflux.errors import InputError
from dermaflux.params import Model

VIT = toy.TINY["vit"]
NAMES = {
    "resnet18": "resnet18",
    " resnet18.tv_in1k ": "resnet18.tv_in1k",
    "vit_base_patch16_224.augreg_in21k": "vit_base_patch16_224.augreg_in21k",
    "vit_base_patch16_224_in21k": "vit_base_patch16_224.augreg_in21k",
    "tv_resnet50": "resnet50.tv_in1k",
    "hf-hub:timm/resnet18.a1_in1k": "resnet18.a1_in1k",
    "hf_hub:timm/resnet18.a1_in1k@main": "resnet18.a1_in1k",
    "https://huggingface.co/timm/resnet18.a1_in1k/": "resnet18.a1_in1k",
    "timm/vit_tiny_patch16_224.augreg_in21k": "vit_tiny_patch16_224.augreg_in21k",
}


def model(name: str, **changes: object) -> Model:
    return Model.model_validate({"name": name, "learning_rate": 1e-3, **changes})


@pytest.fixture
def no_hub(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize("written", NAMES)
def test_names_of_the_registry_and_of_the_hub(written, no_hub) -> None:
    config = configure(model(written), 224)
    known = timm.models.get_pretrained_cfg(NAMES[written])
    assert config["name"] == NAMES[written]
    assert (config["mean"], config["std"]) == (list(known.mean), list(known.std))
    assert timm.is_model(config["name"])
    with pytest.raises(InputError, match=r"pretrained weights timm/\S+ cannot be opened"):
        pretrained.locate(model(written, pretrained=True))


def test_a_folder_that_timm_saved(tmp_path) -> None:
    folder = tmp_path / "saved"
    torch.manual_seed(1)
    options = {**VIT["options"], "img_size": 64}
    saved = timm.create_model(VIT["name"], num_classes=7, **options)
    save_for_hf(saved, str(folder), model_args=options, safe_serialization=True)
    described = model(f"local-dir:{folder}", pretrained=True)
    config = configure(described, toy.SIDE)
    assert config["name"] == VIT["name"]
    wanted = {**VIT["options"], "img_size": toy.SIDE}
    assert {name: config["options"].get(name) for name in wanted} == wanted
    assert "num_classes" not in config["options"]
    weights = pretrained.locate(described)
    assert weights == folder / "model.safetensors"
    built = build(config, weights)
    assert torch.equal(built.blocks[0].attn.qkv.weight, saved.blocks[0].attn.qkv.weight)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model.safetensors in its folder"):
        pretrained.locate(described)
    for damaged in (
        '{"architecture": ["resnet18"]',
        '{"architecture": "resnet18", "pretrained_cfg": {"mean": "x"}}',
        '{"architecture": "resnet18", "pretrained_cfg": {"std": [1, NaN, 1]}}',
    ):
        (folder / "config.json").write_text(damaged)
        with pytest.raises(InputError, match="config.json of model .* was not written by timm"):
            configure(described, toy.SIDE)


UNKNOWN = {
    "ResNet18": "such as resnet18",
    "resnet_18": "such as .*resnet18",
    "vit_tiny_patch16_224.in1k": r"such as vit_tiny_patch16_224\.augreg_in21k",
    "timm/resnet18.a9_in1k": r"'timm/resnet18\.a9_in1k'; .* such as resnet18\.a",
    "microsoft/resnet-50/x": "timm has no model",
    "hf-hub:someone/model": "has no @revision after its name; .* pin the commit",
    "hf-hub:someone/model@main": "someone/model cannot be opened .* name its folder as local-dir:",
    "local-dir:/nowhere": "names a folder without config.json",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_names_get_the_closest(name, no_hub) -> None:
    with pytest.raises(InputError, match=UNKNOWN[name]) as raised:
        configure(model(name), 224)
    assert "\n" not in str(raised.value)


OPTIONS: dict[str, tuple[dict[str, object], str]] = {
    "unknown": ({"depht": 3}, "cannot build .* unexpected keyword argument 'depht'"),
    "of another type": ({"depth": "three"}, "timm cannot build vit_tiny_patch16_224 with options"),
    "negative": ({"embed_dim": -8, "num_heads": 1}, "timm cannot build"),
    "zero": ({"num_heads": 0}, "timm cannot build"),
    "not divisible": ({"embed_dim": 17}, "timm cannot build"),
    "no patch": ({"patch_size": 0}, "timm cannot build"),
    "no pooling": ({"global_pool": ""}, r"outputs of shape \(2, 65, 1\) for 2 images and not"),
    "our own": ({"num_classes": 0}, "'num_classes', which follows from other parameters"),
    "grey": ({"in_chans": 1}, "'in_chans', which follows"),
    "download": ({"pretrained": True}, "'pretrained', which follows"),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_bad_options_are_one_sentence(kind) -> None:
    options, message = OPTIONS[kind]
    described = model(VIT["name"], options={**VIT["options"], **options})
    with pytest.raises(InputError, match=message) as raised:
        network.check(configure(described, 64))
    assert "\n" not in str(raised.value)


def test_a_size_that_the_model_cannot_read_is_said_and_draws_no_random_number() -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(InputError, match="cannot read images of 64 pixels.*train.image_size"):
        network.check(configure(model("efficientformer_l1"), 64))
    network.check(configure(model(VIT["name"], options=VIT["options"]), 64))
    assert torch.equal(torch.random.get_rng_state(), state)
