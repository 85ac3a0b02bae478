"""Packages against the readers that others use: mlcroissant, datasets, the hub's card parser."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import datasets
import finished_stages
import pytest
from huggingface_hub import DatasetCard, ModelCard
from PIL import Image

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import write_json
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.reporting import data_card
from dermaflux.sharing import package

mlcroissant = pytest.importorskip("mlcroissant")


@pytest.mark.parametrize(("name", "images"), [("corpus", 10), ("pool", 6)])
def test_croissant_is_valid_and_gives_every_image(
    finished: Params, name: str, images: int, tmp_path: Path
) -> None:
    folder = tmp_path / "shared" / name
    package.run(finished, name, folder, "https://huggingface.co/datasets/us/x")
    file = folder / "croissant.json"
    described = mlcroissant.Dataset(jsonld=str(file))
    assert not described.metadata.ctx.issues.errors
    assert not described.metadata.ctx.issues.warnings
    stored = table.metadata(folder / "data", ["image_id", "label", "sha256"]).set_index("image_id")
    seen = {}
    for record in described.records("images"):
        picture = record["images/image"]
        assert isinstance(picture, Image.Image)
        seen[record["images/image_id"].decode()] = record["images/label"].decode()
    assert seen == stored["label"].to_dict()
    assert len(seen) == images
    # The checksums are those of the files.
    entries = [entry for entry in json.loads(file.read_text())["distribution"] if "sha256" in entry]
    assert {entry["contentUrl"] for entry in entries} == {
        path.relative_to(folder).as_posix() for path in folder.glob("data/*.parquet")
    }
    for entry in entries:
        content = (folder / entry["contentUrl"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]


def test_the_card_names_the_shards_as_datasets_finds_them(finished: Params, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    package.run(finished, "corpus", folder)
    card = DatasetCard.load(folder / "README.md")
    (configuration,) = card.data.configs
    files = {each["split"]: str(folder / each["path"]) for each in configuration["data_files"]}
    opened = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in opened.items()} == {
        "train": 6, "validation": 2, "test": 2
    }  # fmt: skip
    assert card.data.size_categories == "n<1K"
    assert data_card.size_category(10_000_000) == "10M<n<100M"
    assert "Toy \\| set" in card.text
    # Only the same files under other names: a package of 80,000 images takes no second disk.
    assert (folder / "data" / "train-00000-of-00001.parquet").stat().st_nlink == 2


def test_a_memorised_image_never_leaves_and_the_others_keep_their_bytes(
    finished: Params, tmp_path: Path
) -> None:
    package.run(finished, "pool", tmp_path / "shared")
    rows = table.metadata(tmp_path / "shared" / "data").set_index("image_id")
    original = table.metadata(paths.SYNTHETIC).set_index("image_id")
    assert rows.equals(original.drop(finished_stages.REJECTED))
    card = DatasetCard.load(tmp_path / "shared" / "README.md")
    assert card.data.license_name == "flux-1-dev-non-commercial-license"
    assert "1 of 7 images were too close" in card.text
    assert "129.8 (99.9 to 163.5)" in card.text
    assert "| benign | 4 |" in card.text
    assert "| malignant | 2 |" in card.text
    # Without an audit nobody knows; with that of another pool, neither.
    write_json(paths.REJECTED, {"rejected": ["synthetic/999999"]})
    with pytest.raises(InputError, match="of another pool"):
        package.run(finished, "pool", tmp_path / "other")
    paths.REJECTED.unlink()
    with pytest.raises(InputError, match="are not known; run `dvc repro audit`"):
        package.run(finished, "pool", tmp_path / "other")
    # What others released is not ours to hand on, nor made as the card of a pool says.
    write_json(paths.REJECTED, {"rejected": []})
    name = "synthetic/000000"
    row = finished_stages.row(name, "train", "benign", 0, generator="released", licence="see D")
    table.write([row], paths.SYNTHETIC, 64)
    with pytest.raises(InputError, match="images that others released"):
        package.run(finished, "pool", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_card_of_the_adapter_names_its_base(finished: Params, tmp_path: Path) -> None:
    package.run(finished, "lora", tmp_path / "shared")
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.base_model == "black-forest-labs/FLUX.1-dev"
    assert card.data.library_name == "diffusers"
    assert card.data.license_link.startswith("https://huggingface.co/black-forest-labs/FLUX.1-dev")
    assert f'revision="{finished_stages.REVISION}"' in card.text
    assert "| steps | 1,200 |" in card.text
    assert "| toy | CC-BY |" in card.text
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {
        "README.md", "finetune.json", "pytorch_lora_weights.safetensors"
    }  # fmt: skip
    write_json(paths.GENERATOR / "finetune.json", {"backbone": "f@r", "imported": "them/lora@abc"})
    package.run(finished, "lora", tmp_path / "imported")
    text = (tmp_path / "imported" / "README.md").read_text()
    assert "it is `them/lora@abc`" in text
    assert "| toy |" not in text
    other = finished.model_copy(update={"generator": "vap"})
    with pytest.raises(InputError, match="trains no LoRA"):
        package.run(other, "lora", tmp_path / "other")


def test_names_and_folders_that_cannot_be_packaged(finished: Params, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose one of corpus, pool, lora, champion"):
        package.run(finished, "captions", tmp_path / "shared")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "mine.txt").write_text("")
    with pytest.raises(InputError, match="shared"):
        package.run(finished, "corpus", tmp_path / "shared")
