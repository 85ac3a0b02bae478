"""Weights to start from: what is taken from a file, and the error when there is none."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import toy_corpus as toy
from safetensors.torch import load_file, save_file

from dermaflux.classifiers.model import network, pretrained
from dermaflux.errors import InputError
from dermaflux.params import Model

VIT = toy.TINY["vit"]


def model(**changes: object) -> Model:
    return Model.model_validate({**VIT, "pretrained": True, **changes})


def published(folder: Path, outputs: int, **options: object) -> Path:
    """A file as timm publishes them, of a head with `outputs` outputs."""
    torch.manual_seed(5)
    model = timm.create_model(
        VIT["name"], num_classes=outputs, img_size=toy.SIDE, **{**VIT["options"], **options}
    )
    path = folder / f"{outputs}.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.mark.parametrize(("outputs", "kept_head"), [(1000, False), (7, False), (1, True)])
def test_all_but_a_head_of_another_size_is_taken_over(tmp_path, outputs, kept_head) -> None:
    path = published(tmp_path, outputs)
    described = model(weights=str(path))
    assert pretrained.locate(described) == path
    built = network.build(network.configure(described, toy.SIDE), path).state_dict()
    stored = load_file(path)
    same = {name for name in built if torch.equal(built[name], stored[name])}
    others = set(built) - {"head.weight", "head.bias"}
    assert same - {"head.bias"} == (others | {"head.weight"} if kept_head else others)


def test_weights_of_another_model_are_refused(tmp_path) -> None:
    config = network.configure(model(), toy.SIDE)
    with pytest.raises(InputError, match="do not fit vit_tiny_patch16_224"):
        network.build(config, published(tmp_path, 7, embed_dim=32))
    path = published(tmp_path, 9)
    weights = load_file(path)
    del weights["blocks.0.attn.qkv.weight"]
    save_file(weights, path)
    with pytest.raises(InputError, match=r"lack 1 of \d+ tensors .* blocks.0.attn.qkv.weight"):
        network.build(config, path)


def test_what_is_not_a_file_of_weights_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"absent.safetensors .* is not a file"):
        pretrained.locate(model(weights=str(tmp_path / "absent.safetensors")))
    pickled = tmp_path / "model.pth"
    torch.save({}, pickled)
    with pytest.raises(InputError, match="are not a safetensors file"):
        pretrained.locate(model(weights=str(pickled)))
    with pytest.raises(InputError, match="no weights on the hub for coatnet_0_224"):
        pretrained.locate(model(name="coatnet_0_224"))


def test_a_hub_out_of_reach_is_answered_with_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as error:
        pretrained.locate(model(name="resnext50_32x4d.tv_in1k"))
    message = str(error.value)
    assert "pretrained weights timm/resnext50_32x4d.tv_in1k cannot be opened" in message
    assert "https://huggingface.co/timm/resnext50_32x4d.tv_in1k" in message
    assert "name that file in weights of the model in train.models" in message
    assert message.count(". ") == 0
