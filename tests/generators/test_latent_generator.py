"""`latent_ddpm` with real files: autoencoders of other kinds, classes, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from drawn_unet import SHAPE, UNET, draw_unet
from ruamel.yaml import YAML
from small_generator import Workspace

from dermaflux.core import table
from dermaflux.core.seeds import generator
from dermaflux.errors import InputError
from dermaflux.generators.data import autoencoder
from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.images import Sample, TrainingImages, labelled, select
from dermaflux.generators.data.latents import Latents
from dermaflux.generators.latent_ddpm.model import weights
from dermaflux.generators.latent_ddpm.sampling.generator import GENERATOR
from dermaflux.generators.latent_ddpm.settings import Finetune
from dermaflux.generators.latent_ddpm.training import perceptual
from dermaflux.generators.latent_ddpm.training.trainer import TRAINER, LatentTraining
from dermaflux.generators.protocol import Condition, Models
from dermaflux.params import load

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
NAME = "latent_ddpm"
SETTINGS: dict[str, Any] = {
    "sampler": "ddim", "steps": 2, "guidance": 1.5, "clip_sample_range": 1.5,
}  # fmt: skip


def tiny(folder: Path, channels: int = 4) -> Path:
    """An AutoencoderTiny that reduces 4 times."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1), latent_channels=channels,
        scaling_factor=0.5,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def kl(folder: Path) -> Path:
    """An AutoencoderKL like Stable Diffusion's, with 4 channels, that reduces twice."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, scaling_factor=0.18,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.mark.parametrize(("make", "side"), [(tiny, 32), (kl, 64)])
def test_latents_of_any_autoencoder_are_cached_and_decoded(
    here: Workspace, tmp_path: Path, make: Any, side: int
) -> None:
    """Against the autoencoder itself: its own kind of latents, its own reduction, its scaling."""
    origin = autoencoder.reference(str(make(tmp_path / "vae")), None, here.backbone, NAME)
    vae = autoencoder.load(origin, CPU)
    samples = [s for s in select(labelled(here.corpus), [128], 0, 0) if s.scale == 128][:2]
    drawn = Latents(vae, here.corpus, samples).draw(samples, [generator(n) for n in range(2)])
    assert drawn.shape == (2, 4, side, side)
    pixels = table.pixels(here.corpus, [samples[0].image_id])[samples[0].image_id]
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        encoded = vae.encode(image)
        if make is tiny:
            raw = encoded.latents[0]
        else:
            noise = torch.randn(4, side, side, generator=generator(0))
            raw = encoded.latent_dist.mean[0] + encoded.latent_dist.std[0] * noise
        torch.testing.assert_close(drawn[0], raw * vae.config.scaling_factor, atol=1e-5, rtol=1e-5)
        expected = vae.decode(raw[None]).sample
        torch.testing.assert_close(autoencoder.decode(vae, drawn[:1]), expected)
    assert autoencoder.pixels(vae, drawn).shape == (2, 128, 128, 3)
    loss = perceptual.create("decoder", vae, CPU)
    moved = (drawn + 0.5).requires_grad_()
    assert float(loss(moved, drawn).sum()) > 0
    assert float(loss(drawn, drawn).sum()) == 0
    loss(moved, drawn).sum().backward()
    assert moved.grad is not None
    assert float(moved.grad.abs().sum()) > 0


def test_a_local_network_gives_lpips_and_its_heads_must_fit(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torchvision.models import squeezenet1_0, squeezenet1_1

    vae = autoencoder.load(
        autoencoder.reference(str(tiny(tmp_path / "v")), None, tmp_path, NAME), CPU
    )
    clean, other = (torch.randn(2, 4, 16, 16, generator=generator(n)) for n in "ab")
    heads = {
        f"lin{level}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator(level))
        for level, width in enumerate((64, 128, 256, 384, 384, 512, 512))
    }
    network = squeezenet1_1()
    save_file(
        {k: v.half() for k, v in network.state_dict().items()}, tmp_path / "model.safetensors"
    )
    network.half().float().eval()
    torch.save(heads, tmp_path / "lpips.pth")
    found = perceptual.create(str(tmp_path), vae, CPU)(other, clean)
    # Second route: LPIPS as its authors' code slices this network (features up to 2, 5, 8, 10 ...).
    mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = torch.zeros(2)
    with torch.no_grad():
        maps = [
            (autoencoder.decode(vae, part) - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
            for part in (other, clean)
        ]
        starts = (0, 2, 5, 8, 10, 11, 12, 13)
        for level, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
            maps = [network.features[start:end](part) for part in maps]
            unit = [part / part.norm(dim=1, keepdim=True).clamp(min=1e-10) for part in maps]
            weight = heads[f"lin{level}.model.1.weight"]
            total += ((unit[0] - unit[1]).square() * weight).sum(1).mean((1, 2))
    torch.testing.assert_close(found, total, atol=1e-4, rtol=1e-3)
    other_network = {k: v.clone() for k, v in squeezenet1_0().state_dict().items()}
    save_file(other_network, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="fits layers of .64, 128.* and the network has .96, 256"):
        perceptual.create(str(tmp_path), vae, CPU)
    (tmp_path / "lpips.pth").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read"):
        perceptual.create(str(tmp_path), vae, CPU)
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds weights of none of squeezenet1_1"):
        perceptual.create(str(tmp_path), vae, CPU)
    with pytest.raises(InputError, match=r"has no readable model\.safetensors"):
        perceptual.create(str(tmp_path / "nowhere"), vae, CPU)


def condition(label: str, diagnosis: str | None = None, scale: int = 128) -> Condition:
    return Condition(label, "", scale, 5, diagnosis)


def test_without_a_class_there_is_no_guidance_and_classes_differ(
    here: Workspace, tmp_path: Path
) -> None:
    models = here.models(draw_unet(here.backbone, tmp_path / "weights", DiffusionPath("v")))
    strong = GENERATOR.open(models, SETTINGS | {"guidance": 9.0})
    wanted = [condition(label) for label in ("benign", "malignant", "indeterminate")]
    assert strong.groups(wanted) == [(128, 0), (128, 0), (128, 1)]
    benign, malignant = strong(wanted[:2])
    (none,) = strong(wanted[2:])
    assert (none == GENERATOR.open(models, SETTINGS)(wanted[2:])[0]).all()
    for one, two in ((benign, malignant), (benign, none)):
        assert np.abs(one.astype(int) - two.astype(int)).mean() > 0.5
    assert (
        strong.provenance.backbone
        == autoencoder.reference("backbone", None, here.backbone, NAME).identity
    )


def test_what_was_not_trained_cannot_be_asked_for(here: Workspace, tmp_path: Path) -> None:
    def groups(kind: str, known: tuple[str, ...], wanted: Condition) -> None:
        folder = draw_unet(here.backbone, tmp_path / kind, DiffusionPath("v"), kind, known)
        GENERATOR.open(here.models(folder), SETTINGS).groups([wanted])

    diagnoses = ("melanoma", "nevus")
    for kind, known, wanted, message in (
        (
            "malignancy",
            ("benign", "malignant"),
            condition("benign", "nevus"),
            "on malignancy alone",
        ),
        ("diagnosis", diagnoses, condition("benign"), "without a diagnosis but the generator"),
        (
            "diagnosis",
            diagnoses,
            condition("benign", "wart"),
            "'wart' is asked for but no",
        ),
        ("diagnosis", diagnoses, condition("benign", "nevus", 256), "scale is 256 px and"),
    ):
        with pytest.raises(InputError, match=message):
            groups(kind, known, wanted)
    groups("diagnosis", diagnoses, condition("malignant", "melanoma"))
    groups("diagnosis", diagnoses, condition("indeterminate"))


def test_weights_refuse_another_autoencoder_sampler_or_damage(
    here: Workspace, tmp_path: Path
) -> None:
    folder = draw_unet(here.backbone, tmp_path / "weights", DiffusionPath("v"))
    models = here.models(folder)
    kl(tmp_path / "other" / "vae")
    with pytest.raises(InputError, match=r"the autoencoder \w{12} and '.*/vae' is \w{12}; run the"):
        GENERATOR.open(Models(folder, tmp_path / "other"), SETTINGS)
    for changes, message in (
        ({"sampler": "euler"}, "'euler' cannot sample a model .* 'v'; choose ddpm, ddim"),
        ({"steps": 1001}, "steps is 1,001 and the noise schedule has 1,000"),
        ({"steps": 501}, "steps is 501 and ddim needs a divisor of 1,000; set it to one such as"),
    ):
        with pytest.raises(InputError, match=message):
            GENERATOR.open(models, SETTINGS | changes)
    file = folder / weights.FILE.name
    content = file.read_bytes()
    for bad in (content[: len(content) // 2], b"", content.replace(b'\\"v', b'\\"w', 1)):
        file.write_bytes(bad)
        with pytest.raises(InputError, match="is damaged"):
            GENERATOR.open(models, SETTINGS)([condition("benign")])


def test_a_run_that_cannot_work_stops_before_it_begins(here: Workspace, tmp_path: Path) -> None:
    samples = [
        Sample(f"x/{n}", "", label, 128, "") for n, label in enumerate(("benign", "malignant"))
    ]
    images = TrainingImages(samples, [], 0, 0)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text("{")
    for changes, message in (
        ({"block_out_channels": [32] * 6}, "latents of 16 px, which a U-Net of 6 levels cannot"),
        ({"latents": str(tmp_path)}, "holds no autoencoder .config.json is not there."),
        ({"latents": str(tmp_path / "odd")}, "is of the kind 'VQModel'; name one of"),
        ({"latents": str(tmp_path / "torn")}, "cannot be opened"),
        ({"condition": "diagnosis"}, "none of the 2 training images has a diagnosis"),
    ):
        run = here.training_run("latent_ddpm", UNET.model_copy(update=changes))
        with pytest.raises(InputError, match=message) as caught:
            TRAINER.prepare(run, images)
        assert "\n" not in str(caught.value)
    two = dataclasses.replace(here.training_run().processes, world=4)
    with pytest.raises(
        InputError, match=r"2, which 4 processes cannot share evenly; .* of 4, and batch"
    ):
        TRAINER.prepare(here.training_run("latent_ddpm", UNET, processes=two), images)


def test_a_training_is_another_with_other_perceptual_features(tmp_path: Path) -> None:
    """A folder counts by what it holds, and only where the loss reads it."""
    model = SimpleNamespace(description=SimpleNamespace(autoencoder="a"))
    settings = UNET.model_copy(update={"perceptual_features": str(tmp_path)})

    def identity(loss: object, changed: Finetune = settings) -> object:
        inputs = SimpleNamespace(model=model, data=SimpleNamespace(samples=[]), perceptual=loss)
        return LatentTraining(None, changed, inputs).identity["perceptual_features"]  # type: ignore[arg-type]

    found = []
    for content in ("first", "second"):
        (tmp_path / "weights").write_text(content)
        found.append(identity(object()))
    assert found[0] != found[1]
    assert identity(None) is None
    decoder = UNET.model_copy(update={"perceptual_features": "decoder"})
    assert identity(object(), decoder) == "decoder"


def test_the_identity_of_a_hub_autoencoder_names_its_subfolder(tmp_path: Path) -> None:
    commit = "ab" * 20
    (tmp_path / "pin.json").write_text(f'{{"repository": "org/flux", "revision": "{commit}"}}')
    for latents, rest in (("org/vae", ""), ("backbone", "/vae")):
        name = latents.replace("backbone", "org/flux")
        expected = f"{name}@{commit}{rest}"
        assert autoencoder.reference(latents, commit, tmp_path, NAME).identity == expected


def of_latent_ddpm() -> dict[str, Any]:
    raw: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    return raw | {"generator": "latent_ddpm"}


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("synthesize", "sampler", "ddim", "'ddim' cannot sample .* 'flow'; choose euler"),
        ("finetune", "scale", 256, "synthesize.scale is 128 px and .*scale 256 px"),
        ("finetune", "perceptual_weight", 0.1, "perceptual_weight is 0.1 and perceptual_features"),
        ("finetune", "micro_batches", 3, "batch 16 is not a multiple of micro_batches 3"),
        ("finetune", "attention_levels", 4, "attention_levels is 4 and block_out_channels has 3"),
        ("finetune", "condition", "diagnosis", "is 'malignancy' and .*condition 'diagnosis'; a"),
        ("finetune", "beta_start", 0.5, "beta_start 0.5 is greater than beta_end 0.02"),
        ("finetune", "block_out_channels", [50], "should be a multiple of 32"),
    ],
)
def test_parameters_that_contradict_each_other(
    section: str, key: str, value: Any, message: str
) -> None:
    raw = of_latent_ddpm()
    assert load.parse(raw).generator == "latent_ddpm"
    raw[section]["latent_ddpm"][key] = value
    with pytest.raises(InputError, match=message):
        load.parse(raw)


def test_noise_may_not_bury_the_signal_where_a_division_by_it_follows() -> None:
    """float32 has no number below 1e-45: alpha-bar would be 0, and every sampler's image NaN."""
    for end, prediction, refused in (
        (0.2, "epsilon", True), (0.2, "v", True), (0.2, "flow", False), (0.1, "epsilon", False)
    ):  # fmt: skip
        settings = UNET.model_copy(update={"beta_end": end, "prediction": prediction})
        if refused:
            path = DiffusionPath(prediction, settings.beta_start, end)  # type: ignore[arg-type]
            assert float(path.alphas_cumprod[-1]) == 0
            with pytest.raises(ValueError, match="beta_end 0.2 leaves 2e-47 of the signal"):
                settings.check_chosen()
        else:
            settings.check_chosen()


def test_a_pool_asks_for_the_classes_that_the_defaults_train() -> None:
    raw = of_latent_ddpm()
    del raw["finetune"]["latent_ddpm"]["condition"], raw["synthesize"]["conditions"]
    assert load.parse(raw).synthesize.conditions == "malignancy"
    raw["synthesize"] |= {"conditions": "none"}
    raw["finetune"]["latent_ddpm"]["condition"] = "diagnosis"
    assert load.parse(raw | {"ratio": 0}).synthesize.conditions == "none"


def test_parameters_of_captions_are_none_of_its_own() -> None:
    raw = of_latent_ddpm()
    raw["synthesize"]["prompt_source"] = "held_out"
    raw["caption"]["held_out_fraction"] = 0.0
    load.parse(raw)
    raw |= {"train": {**raw["train"], "labels": "diagnosis"}, "real_fraction": 0.5}
    with pytest.raises(InputError, match="conditions 'malignancy' gives them none; set it to diag"):
        load.parse(raw)


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    for changes, message in (
        ({"latents": "org/vae"}, "is not a folder here and, as a hub repository, has no"),
        ({"perceptual_features": str(tmp_path / "x")}, "is neither decoder nor a folder"),
    ):
        settings = UNET.model_copy(update=changes)
        with pytest.raises(ValueError, match=message):
            settings.check_inputs()
        assert list(changes.values())[0] in settings.input_paths().values()
    UNET.check_inputs()
    assert SHAPE.channels == 16
