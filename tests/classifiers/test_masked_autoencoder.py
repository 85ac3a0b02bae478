"""The masked autoencoder against closed forms, timm's encoder and the published sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dermaflux.classifiers.model import network
from dermaflux.classifiers.recipes.mae import autoencoder, encoder, probe, views
from dermaflux.classifiers.recipes.mae.objective import HeldOut, Objective
from dermaflux.classifiers.recipes.mae.plan import plan
from dermaflux.core.distributed import Processes
from dermaflux.errors import InputError
from dermaflux.params import Model, Pretrain

SIDE, PATCH, WIDTH = 32, 8, 32
OPTIONS = {"patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": 2}


def model(**changes: Any) -> Model:
    options = {**OPTIONS, **changes.pop("options", {})}
    values = {"name": "vit_tiny_patch16_224", "learning_rate": 1e-3, "options": options}
    return Model.model_validate({**values, **changes})


def section(**changes: Any) -> Pretrain:
    small = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "mask_ratio": 0.75}
    return Pretrain.model_validate({"architecture": "vit", **small, **changes})


def random_autoencoder(**changes: Any) -> Any:
    """With all weights random, so that a biased or exchanged one is seen."""
    torch.manual_seed(0)
    built = autoencoder.build(encoder.describe("vit", model(), SIDE), section(**changes))
    with torch.no_grad():
        for weight in built.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
    return built.eval()


def published_position(row: int, column: int, width: int) -> list[float]:
    """`get_2d_sincos_pos_embed` of the MAE repository, number by number: the column comes first."""
    rates = [1 / 10000 ** (k / (width / 4)) for k in range(width // 4)]
    return [
        wave(place * rate)
        for place in (column, row)
        for wave in (math.sin, math.cos)
        for rate in rates
    ]


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_positions_are_the_published_ones_and_never_learn(part: str) -> None:
    built = autoencoder.build(encoder.describe("vit", model(), SIDE), section())
    fixed = (
        built.vit.embeddings.position_embeddings
        if part == "encoder"
        else built.decoder.decoder_pos_embed
    )
    width = WIDTH if part == "encoder" else 16
    expected = [[0.0] * width]
    expected += [published_position(row, column, width) for row in range(4) for column in range(4)]
    assert fixed[0].numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert not fixed.requires_grad
    assert built.config.layer_norm_eps == 1e-6  # timm's; transformers has 1e-12
    token = built.vit.embeddings.cls_token if part == "encoder" else built.decoder.mask_token
    assert 0.01 < float(token.detach().std()) < 0.03  # transformers leaves the decoder's at 0


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_the_exported_encoder_gives_the_features_of_timm(pooling: str, tmp_path) -> None:
    built = random_autoencoder()
    path = tmp_path / "model.safetensors"
    network.save_weights(encoder.timm_weights(built.state_dict()), path)
    net = network.build(
        network.configure(model(options={"global_pool": pooling}), SIDE), path
    ).eval()
    images = torch.randn(3, 3, SIDE, SIDE)
    built.config.mask_ratio = 0.0
    order = torch.arange(16.0).expand(3, -1)
    if pooling == "avg":  # which averages tokens and then normalises, with a fresh normalisation
        built.vit.layernorm = torch.nn.Identity()
    with torch.no_grad():
        tokens = built.vit(pixel_values=images, noise=order).last_hidden_state
        found = net.forward_features(images)
        head = net.forward_head(found, pre_logits=True)
    torch.testing.assert_close(found, tokens, atol=1e-5, rtol=1e-5)
    average = tokens[:, 1:].mean(dim=1)
    expected = torch.nn.functional.layer_norm(average, (WIDTH,), eps=1e-6)
    torch.testing.assert_close(
        head, tokens[:, 0] if pooling == "token" else expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("standardised", [False, True])
def test_the_loss_is_the_mean_squared_error_on_hidden_patches(standardised: bool) -> None:
    built = random_autoencoder(norm_pix_loss=standardised)
    images, noise = torch.randn(2, 3, SIDE, SIDE), torch.rand(2, 16)
    with torch.no_grad():
        output = built(pixel_values=images, noise=noise)
    errors = []
    for image, chance, predicted in zip(images, noise, output.logits, strict=True):
        hidden = np.argsort(chance.numpy())[4:]  # 12 of 16 patches
        for index in hidden:
            row, column = divmod(int(index), 4)
            part = image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            wanted = part.permute(1, 2, 0).flatten().double().numpy()  # rows, columns, channels
            if standardised:
                wanted = (wanted - wanted.mean()) / math.sqrt(wanted.var(ddof=1) + 1e-6)
            errors.append(((predicted[index].double().numpy() - wanted) ** 2).mean())
    assert float(output.loss) == pytest.approx(np.mean(errors), rel=1e-5)
    seen, whole = autoencoder.reconstructions(built, images, noise)
    shown = seen != 0
    assert shown.sum() == 2 * 4 * 3 * PATCH**2
    assert torch.equal(seen[shown], images[shown])
    assert torch.equal(whole[shown], images[shown])
    with torch.no_grad():  # hidden pixels reach the loss and nothing that is predicted
        blind = built(pixel_values=seen.detach(), noise=noise).logits
    torch.testing.assert_close(blind, output.logits, atol=1e-5, rtol=1e-5)


def test_crops_show_the_rectangle_that_was_drawn() -> None:
    ramp = (torch.arange(SIDE) + 0.5) / SIDE
    image = torch.stack(
        [ramp.expand(SIDE, SIDE), ramp[:, None].expand(SIDE, SIDE), ramp.expand(SIDE, SIDE)]
    )
    chances = torch.rand(200, 5, generator=torch.Generator().manual_seed(0))
    crops = views.crop(image.expand(200, -1, -1, -1), chances, (0.2, 1.0))
    steps = (crops[:, 0, 5, 1:-1] - crops[:, 0, 5, :-2])[:, 4:-4].mean(dim=1)
    down = (crops[:, 1, 1:-1, 5] - crops[:, 1, :-2, 5])[:, 4:-4].mean(dim=1)
    width, height = steps.abs() * SIDE, down * SIDE
    inside = (width < 0.95) & (height < 0.95)  # elsewhere a side was cut to the image
    area, ratio = (width * height)[inside], (width / height)[inside]
    assert inside.sum() > 100
    assert 0.19 < area.min() < 0.25
    assert 0.7 < area.max() < 1
    assert 0.74 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.35
    assert 0.4 < (steps < 0).double().mean() < 0.6  # mirrored
    assert crops.min() > 0
    assert crops.max() < 1
    whole = torch.tensor([[0.9, 0.5, 0.3, 0.8, coin] for coin in (0.9, 0.1)])
    plain, mirrored = views.crop(image.expand(2, -1, -1, -1), whole, (1.0, 1.0))
    torch.testing.assert_close(plain, image)
    torch.testing.assert_close(mirrored, image.flip(2))


def test_an_epoch_shows_every_image_once_in_batches_of_nearly_one_size() -> None:
    steps = views.Steps(images=103, batch=25, seed=1)
    epochs = [[steps.at(5 * epoch + step) for step in range(5)] for epoch in range(2)]
    for epoch in epochs:
        assert sorted(torch.cat(epoch).tolist()) == list(range(103))
        assert {len(part) for part in epoch} == {20, 21}
    assert [steps.count(step) for step in range(10)] == [len(part) for e in epochs for part in e]
    assert torch.cat(epochs[0]).tolist() != torch.cat(epochs[1]).tolist()


def objective(built: Any, processes: Processes) -> Objective:
    pixels = np.random.default_rng(0).integers(0, 255, (20, SIDE, SIDE, 3), np.uint8)
    steps = views.Steps(20, 7, 3)
    config = network.configure(model(), SIDE)
    ids = [str(number) for number in range(20)]
    return Objective(built, config, pixels, ids, steps, 6, (0.2, 1.0), 1.0, processes)


def test_processes_that_share_a_batch_train_what_one_would() -> None:
    built = random_autoencoder()
    gradients, losses, seen = [], [], []
    for world in (1, 2):
        built.zero_grad()
        parts = []
        for rank in range(world):
            shared = objective(built, Processes(rank, world))
            parts += list(shared.parts(4))
            shared.close()
        for part in parts:
            part.loss.backward()
        losses.append(sum(float(part.loss.detach()) for part in parts))
        seen.append(sorted(name for part in parts for name in part.image_ids))
        gradients.append(built.decoder.decoder_pred.weight.grad.clone())
    assert seen[0] == seen[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_held_out_loss_does_not_depend_on_the_batch() -> None:
    built, config = random_autoencoder(), network.configure(model(), SIDE)
    pixels = np.random.default_rng(0).integers(0, 255, (9, SIDE, SIDE, 3), np.uint8)
    losses = [HeldOut(built, config, pixels, batch, 0)()["validation_loss"] for batch in (2, 9)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters", "gflop"),
    # DerMAE's own figure: parameters in millions, GFLOP of a forward pass at 256 px.
    [
        ("vit_base_patch16_224", 85.9, 46.4),
        ("vit_huge_patch14_224", 631, 335),
    ],
)
def test_the_plan_has_the_published_parameters_and_flop(name, parameters, gflop) -> None:
    described = Model(name=name, learning_rate=1e-3, options={"patch_size": 16})
    planned = plan(encoder.describe("x", described, 256), Pretrain(architecture="x"), 256)
    assert planned.encoder_parameters / 1e6 == pytest.approx(parameters, rel=0.005)
    assert planned.flop_per_image / 1e9 == pytest.approx(gflop, rel=0.01)
    assert planned.state_bytes == pytest.approx(
        16 * (planned.encoder_parameters + planned.decoder_parameters), rel=0.01
    )
    # A quarter of the tokens and a small decoder, three times for forward and backward.
    assert 0.25 < planned.training_flop_per_image / (3 * planned.flop_per_image) < 1
    assert " GFLOP an image forward" in planned.table("x", 256)


@pytest.mark.parametrize(
    ("changes", "side", "message"),
    [
        ({"name": "resnet18", "options": {}}, 32, "'resnet18', which is not a plain"),
        (
            {"name": "tiny_vit_5m_224", "options": {}},
            224,
            "'tiny_vit_5m_224', which is not a plain",
        ),
        ({"options": {"init_values": 1e-5}}, 32, "not a plain Vision Transformer"),
        ({"options": {"reg_tokens": 1}}, 32, "not a plain Vision Transformer"),
        ({"options": {"patch_size": 7}}, 32, "have 7 pixels, which do not tile images of .* 32"),
        ({"options": {"embed_dim": 30}}, 32, "width 30, and positions .* need a multiple of 4"),
    ],
)
def test_an_encoder_that_cannot_be_one_is_refused(changes, side, message) -> None:
    values = {"name": "vit_tiny_patch16_224", "learning_rate": 1e-3, **changes}
    if values["name"].startswith("vit"):
        values["options"] = {**OPTIONS, **values["options"]}
    with pytest.raises(InputError, match=message):
        encoder.describe("x", Model.model_validate(values), side)


def test_a_model_of_another_size_does_not_fit() -> None:
    described = encoder.describe("vit", model(), SIDE)
    encoder.check_fits(described, "vit", model(options={"global_pool": "avg"}))
    with pytest.raises(InputError, match=r"train.models.b .* is .*32.* there and .*64"):
        encoder.check_fits(described, "b", model(options={"embed_dim": 64}))
    with pytest.raises(InputError, match=r"blocks.2.norm1.weight is absent there"):
        encoder.check_fits(described, "b", model(options={"depth": 3}))


def test_the_probe_finds_what_features_tell_and_bounds_it() -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(200) % 2
    telling = np.column_stack([labels + 0.3 * draw.normal(size=200), draw.normal(size=200)])
    scores = probe.probability(telling, labels, telling)
    noise = probe.probability(draw.normal(size=(200, 2)), labels, draw.normal(size=(200, 2)))
    weights = draw.multinomial(200, np.full(200, 1 / 200), 300)
    found = probe.figures(labels, {"mae": scores, "random": noise}, weights, (0.025, 0.975))
    assert found["mae"]["auc"] > 0.95 > found["random"]["auc_high"]
    assert found["random"]["auc_low"] < 0.5 < found["random"]["auc_high"]
    difference = found["difference"]
    assert difference["auc"] == pytest.approx(found["mae"]["auc"] - found["random"]["auc"])
    assert 0 < difference["auc_low"] < difference["auc"] < difference["auc_high"]
