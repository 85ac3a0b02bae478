from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_registry
from PIL import Image

import dermaflux
from dermaflux.api import ImageSampler
from dermaflux.errors import InputError
from dermaflux.registry.serving import COLUMNS


@pytest.fixture
def here(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(notebook)
    return notebook


def test_importing_the_package_loads_no_library() -> None:
    code = (
        "import sys, dermaflux\n"
        "assert {'open_corpus', 'predict'} <= set(dir(dermaflux))\n"
        "heavy = ['torch', 'pandas', 'mlflow', 'numpy', 'datasets', 'pydantic']\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_stub_names_what_the_module_offers() -> None:
    stub = Path(dermaflux.__file__).with_name("__init__.pyi").read_text()
    for name in dermaflux.__all__:
        assert f"from dermaflux.api import {name} as {name}" in stub
        assert callable(getattr(dermaflux, name))
    with pytest.raises(AttributeError, match="open_corpse"):
        _ = dermaflux.open_corpse  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_corpus_is_the_shards_row_by_row(here: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(sorted((here / "corpus").glob("test-*"))[0]).to_pylist()
    corpus = dermaflux.open_corpus(split="test")
    assert corpus["image_id"][:] == [row["image_id"] for row in rows]
    assert corpus[3]["image"].size == (32, 32)
    assert len(dermaflux.open_corpus()) == sum(
        len(dermaflux.open_corpus(split=split)) for split in ("train", "validation", "test")
    )


@pytest.mark.parametrize(
    ("folder", "split", "sentence"),
    [
        ("corpus", "dev", "split is 'dev'; choose one of train, validation, test"),
        ("synthetic", "test", "synthetic holds no Parquet shards of split test"),
        ("corpse", None, "corpse holds no Parquet shards"),
    ],
)
@pytest.mark.slow
def test_a_corpus_that_is_not_there_is_one_sentence(
    here: Path, folder: str, split: str | None, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        dermaflux.open_corpus(folder, split)


def test_a_label_is_prompted_with_the_sentence_of_training() -> None:
    calls = []

    def sample(prompts: object, seeds: object) -> np.ndarray:
        calls.append((prompts, seeds))
        return np.zeros((2, 8, 8, 3), np.uint8)

    sampler = ImageSampler(sample)
    sampler.sample(["malignant", "malignant border"])
    sentence = "This is an image containing a malignant lesion."
    assert calls == [([sentence, "malignant border"], [0, 1])]
    with pytest.raises(InputError, match="2 prompts but 1 seeds"):
        sampler.sample(["benign", "benign"], [0])
    for wrong in ("benign", []):
        with pytest.raises(InputError, match="give a list of at least one text"):
            sampler.sample(wrong)


@pytest.mark.slow
def test_a_sampled_image_depends_on_weights_prompt_seed_and_settings(here: Path) -> None:
    generator = dermaflux.open_generator(steps=2, scale=128)
    images = generator.sample(["benign", "benign", "malignant"], seeds=[3, 4, 3])
    assert images.shape == (3, 128, 128, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 3
    alone = generator.sample(["benign"], seeds=[4])[0]
    assert np.abs(alone.astype(int) - images[1]).max() <= 1
    other = dermaflux.open_generator(steps=3, scale=256).sample(["benign"], seeds=[4])[0]
    assert other.shape == (256, 256, 3)


@pytest.mark.slow
def test_bad_settings_of_a_generator_are_one_sentence(here: Path) -> None:
    with pytest.raises(InputError, match=r"unknown .*flux_lora\.stepz'.*'steps'"):
        dermaflux.open_generator(stepz=3)
    with pytest.raises(InputError, match=r"synthesize.*scale is 100"):
        dermaflux.open_generator(scale=100)
    with pytest.raises(InputError, match="elsewhere"):
        dermaflux.open_generator("elsewhere")


@pytest.mark.slow
def test_every_form_of_an_image_gets_the_same_answer(here: Path, tmp_path: Path) -> None:
    encoded = small_registry.image(7, malignant=True)
    path = tmp_path / "lesion.png"
    path.write_bytes(encoded)
    pixels = np.asarray(Image.open(path))
    forms = [str(path), path, encoded, Image.open(path), pixels]
    answers = dermaflux.predict(forms)
    assert tuple(answers) == COLUMNS
    assert answers["probability"].nunique() == 1
    assert answers["probability"].between(0, 1).all()
    for single in (path, encoded, pixels, pixels[None]):
        assert dermaflux.predict(single).equals(answers[:1])
    cut_out = Image.open(path).convert("RGBA")
    cut_out.putalpha(Image.linear_gradient("L").resize(cut_out.size))
    cut_out.save(tmp_path / "cut.png")
    assert dermaflux.predict([tmp_path / "cut.png", cut_out])["probability"].nunique() == 1
    damaged = dermaflux.predict([b"not an image", encoded])
    assert "not a whole image" in damaged["problem"][0]
    assert damaged["probability"][1] == answers["probability"][0]


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ("absent.png", r"absent\.png is not a file"),
        (3, "an image is a int; give a path"),
        (np.zeros((8, 8, 3)), r"float64 of shape \(8, 8, 3\); give uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 of shape \(8, 8, 4\)"),
    ],
)
@pytest.mark.slow
def test_what_is_not_an_image_is_one_sentence(here: Path, image: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        dermaflux.predict([image])  # type: ignore[list-item]


@pytest.mark.slow
def test_results_are_those_of_the_evaluation_files(here: Path) -> None:
    results = dermaflux.read_results()
    indexed = results.set_index(["architecture", "seed", "arm", "metric"])
    cell = json.loads((here / "reports/evaluate/vit-1.json").read_text())["mixture"]
    row = indexed.loc[("vit", 1, "mixture", "auc")]
    assert row.to_dict() == {"value": cell["auc"], "low": cell["auc_low"], "high": cell["auc_high"]}
    assert (results["low"] <= results["value"]).all()
    assert (results["value"] <= results["high"]).all()
    assert indexed.index.is_unique

    means = dermaflux.read_results(seed_means=True).set_index(["architecture", "arm", "metric"])
    seeds = indexed.loc[("vit", slice(None), "real", "auc"), "value"]
    assert len(seeds) == 2
    mean = means.loc[("vit", "real", "auc")]
    assert mean["value"] == pytest.approx(seeds.mean())
    assert mean["low"] < min(seeds)
    assert mean["high"] > max(seeds)
