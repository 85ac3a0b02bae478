"""Trunks against the libraries' own route to the same features, and what is kept of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_lesions import lesion, row
from safetensors.torch import save_file
from scipy import stats

from dermaflux.audit import features, trunks
from dermaflux.audit.faithfulness import image_text
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import Audit

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    torch.manual_seed(0)
    return tmp_path


def drawn(side: int, count: int = 2) -> np.ndarray:
    return np.stack([np.array(lesion(n, "benign", 64).resize((side, side))) for n in range(count)])


def scaled(images: np.ndarray) -> torch.Tensor:
    return ((torch.from_numpy(images) / 255 - MEAN) / STD).permute(0, 3, 1, 2)


@torch.no_grad()
def test_squeezenet_from_a_folder() -> None:
    from torchvision.models import squeezenet1_0

    reference = squeezenet1_0(weights=None).eval()
    save_file(reference.state_dict(), "model.safetensors")
    trunk = trunks.open_trunk(Audit(features="."))
    images = drawn(trunk.side)
    points, logits = trunk.function(images)
    maps = torch.nn.functional.adaptive_avg_pool2d(reference.features(scaled(images)), 1)
    assert points == pytest.approx(maps.flatten(1).numpy(), rel=1e-4, abs=1e-6)
    assert logits == pytest.approx(reference(scaled(images)).numpy(), rel=1e-4, abs=1e-5)


@torch.no_grad()
def test_a_timm_model_with_and_without_classes() -> None:
    import timm

    reference = timm.create_model("test_vit", num_classes=7, img_size=32).eval()
    save_file(reference.state_dict(), "vit.safetensors")
    trunk = trunks.open_trunk(Audit(features="timm:test_vit", weights="vit.safetensors",
                                    image_size=32))  # fmt: skip
    assert trunk.side == 32
    images = drawn(32)
    batch = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5  # its own scaling
    points, logits = trunk.function(images)
    assert logits == pytest.approx(reference(batch).numpy(), rel=1e-4, abs=1e-5)
    reference.reset_classifier(0)
    assert points == pytest.approx(reference(batch).numpy(), rel=1e-4, abs=1e-5)
    save_file(reference.state_dict(), "headless.safetensors")
    other = trunks.open_trunk(Audit(features="timm:test_vit", weights="headless.safetensors",
                                    image_size=32))  # fmt: skip
    assert other.function(images)[1] is None
    assert other.function(images)[0] == pytest.approx(points)
    assert other.identity != trunk.identity


@torch.no_grad()
def test_an_open_clip_model(folder: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 49408,
            "width": 64,
            "heads": 1,
            "layers": 1,
        },
    }
    Path("tiny-test.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-test.json")
    reference = open_clip.create_model("tiny-test").eval()
    save_file(reference.state_dict(), "clip.safetensors")
    trunk = trunks.open_trunk(Audit(features="open_clip:tiny-test", weights="clip.safetensors"))
    images = drawn(trunk.side)
    mean, std = (torch.tensor(values) for values in (reference.visual.image_mean,
                                                     reference.visual.image_std))  # fmt: skip
    batch = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
    points, logits = trunk.function(images)
    assert logits is None
    assert points == pytest.approx(reference.encode_image(batch).numpy(), rel=1e-4, abs=1e-6)

    # The score of images beside texts, against torch's cosine of every pair.
    settings = Audit(image_text="tiny-test", image_text_weights="clip.safetensors")
    side, score = image_text.open_model(settings)
    texts = ["a mole", "jagged"][: len(images)] + ["smooth"] * (len(images) - 2)
    seen, read = score(list(images), texts)
    assert (side, len(read)) == (32, len(texts))
    tokens = open_clip.get_tokenizer("tiny-test")(texts)
    cosines = torch.cosine_similarity(
        reference.encode_image(batch)[:, None], reference.encode_text(tokens)[None], dim=2
    ).numpy()
    assert seen @ read.T == pytest.approx(cosines, abs=1e-5)
    with pytest.raises(InputError, match="audit.image_text_weights 'none' is not a file"):
        image_text.open_model(settings.model_copy(update={"image_text_weights": "none"}))


def test_the_score_beside_texts_is_that_over_the_other_texts_of_the_class() -> None:
    draw = np.random.default_rng(0)
    images = draw.normal(size=(40, 6))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    labels = ["benign"] * 25 + ["malignant"] * 15
    found = image_text.excess(images, images, labels)
    cosines = images @ images.T
    own = [
        1 - np.delete(cosines[i, :25] if i < 25 else cosines[i, 25:], i % 25).mean()
        for i in range(40)
    ]
    assert found["value"] == pytest.approx(np.mean(own))
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.96 * stats.sem(own))
    permuted = image_text.excess(images, images[::-1], ["benign"] * 40)
    assert permuted["low"] < 0 < permuted["high"]
    assert image_text.excess(images[:9], images[:9], ["benign"] * 9)["value"] is None


def test_the_inception_of_fid(monkeypatch) -> None:
    """With random weights, against torch-fidelity's extractor on images of its own size."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    extractor = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(extractor, "load_state_dict", lambda *_: None)
        reference = extractor("reference", ["2048", "logits_unbiased"])
    torch.save(reference.state_dict(), "inception.pth")
    trunk = trunks.open_trunk(Audit(features="inception", weights="inception.pth"))
    images = drawn(299)
    points, logits = trunk.function(images)
    expected = reference(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert points == pytest.approx(expected[0].numpy(), rel=1e-4)
    assert logits == pytest.approx(expected[1].numpy(), rel=1e-4, abs=1e-5)
    assert points.shape == (2, 2048)


class Dangerous:
    """What a pickle can do when it is read."""

    def __reduce__(self):
        return (Path("ran").touch, ())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"features": "nowhere"}, "'nowhere' contains no SqueezeNet 1.0 weights .*; set it to"),
        ({"features": "inception", "weights": "none.pth"}, "is not the Inception of FID"),
        ({"features": "inception", "weights": "evil.pth"}, "is not the Inception of FID"),
        ({"features": "inception", "weights": "other.safetensors"}, "not the Inception of FID"),
        ({"features": "timm:resnet19", "weights": "other.safetensors"}, "timm has no such model"),
        ({"features": "timm:resnet18.a9", "weights": "other.safetensors"}, "no such model"),
        ({"features": "timm:test_vit", "weights": "other.safetensors"}, "are not those of timm:t"),
        ({"features": "timm:test_vit", "weights": "evil.pth"}, "are not those of timm:test_vit"),
        ({"features": "timm:test_vit", "weights": "timm/test_vit"}, "has no audit.revision;"),
        ({"features": "timm:test_vit", "weights": "/none"}, "'/none' is not a file; name one, or"),
        ({"features": "open_clip:ViT-X", "weights": "evil.pth"}, "open_clip has no such model"),
    ],
)
def test_weights_that_are_not_there_or_of_another_network(settings, sentence) -> None:
    save_file({"a": torch.zeros(1)}, "other.safetensors")
    Path("evil.pth").write_bytes(pickle.dumps(Dangerous()))
    with pytest.raises(InputError, match=sentence):
        trunks.open_trunk(Audit(**settings))
    assert not Path("ran").exists()


@pytest.mark.parametrize("symmetric", [False, True])
def test_features_are_computed_once_for_each_content(symmetric: bool) -> None:
    images = [row(lesion(n, "benign", 64), f"isic2019/{n:02d}", "benign", "train")
              for n in (3, 1, 2)]  # fmt: skip
    table.write(images, Path("corpus"), 64)
    # The same bytes under other names in another folder.
    again = [{**each, "image_id": f"own/{n}"} for n, each in enumerate(reversed(images))]
    table.write(
        [*again, row(lesion(9, "benign", 64), "own/new", "benign", "test")], Path("pool"), 64
    )
    seen = []

    def function(batch):
        seen.append(len(batch))
        return batch.reshape(len(batch), -1)[:, :5].astype(np.float32), batch[:, 0, 0, :2] / 1.0

    trunk = trunks.Trunk("counted", 16, function, "identity")
    plain = trunks.Trunk("counted", 16, function, None)

    def extracted(folder: str, split: str, of: trunks.Trunk) -> features.Features:
        rows = table.metadata(Path(folder), ["image_id", "sha256"], split)
        return features.extract(Path(folder), rows, split, of, symmetric)

    first = extracted("corpus", "train", trunk)
    assert sum(seen) == 3 * (8 if symmetric else 1)
    shown = dict(table.decoded(Path("corpus"), split="train", side=16))
    points, logits = function(np.stack([shown[each["image_id"]] for each in images]))
    assert np.array_equal(first.logits, logits)  # of the images as they are
    assert np.array_equal(first.points[:, 0] if symmetric else first.points, points)
    fresh = extracted("corpus", "train", plain)
    count = len(seen)
    second = extracted("pool", "train", trunk)
    assert len(seen) == count
    for name in features.Features._fields:
        kept = getattr(first, name)
        assert np.array_equal(kept, getattr(fresh, name))
        assert np.array_equal(kept[::-1], getattr(second, name))
    extracted("pool", "test", trunk)
    assert len(seen) == count + 1  # other content
    extracted("corpus", "train", trunks.Trunk("counted", 16, function, "other weights"))
    assert len(seen) == count + 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"features": "timm:"}, "names no model; write timm:NAME"),
        ({"features": "inception"}, "'inception' needs weights; name a file \\["),
        ({"features": "timm:resnet18"}, "needs weights; name a file or a hub id"),
        ({"weights": "a"}, "weights 'a' are of no use to features 'pixels'; set them to null"),
        ({"features": "inception", "weights": "a", "revision": "b"}, "'b' pins no hub id"),
        ({"image_size": 64}, "image_size 64 is for models of timm"),
    ],
)
def test_settings_that_do_not_go_together(settings, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        Audit(**settings)
