"""Binary files, mutated: what they held, or one sentence; never other rows and never a traceback.

Shards, LoRA files of other programs, checkpoints, released images. HYPOTHESIS_PROFILE=attack tries
sixty times as many.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import toy_corpus
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import answered, check_sentence, mutated
from safetensors.torch import save

from dermaflux.captions.imported import match
from dermaflux.core import files as core_files
from dermaflux.core import table
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.files import adapter_bytes, adapter_file
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.released.model import files as released
from dermaflux.training.state import Settings, TrainingState

ROWS = toy_corpus.rows("train", "toy", 2, 2, 0)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def shard() -> bytes:
    with folder() as root:
        path = root / table.shard_name("train", 0, 1)
        table.write_shard(ROWS, path)
        return path.read_bytes()


SHARD = shard()
PICTURES = {row["image_id"]: row["image"]["bytes"] for row in ROWS}
WRITTEN = {row["image_id"]: (row["label"], row["split"], row["sha256"]) for row in ROWS}


def rows_and_images(root: Path) -> tuple[pd.DataFrame, dict[str, bytes]]:
    rows = table.metadata(root)
    return rows, dict(table.images(root))


@given(mutated([SHARD]))
def test_a_mutated_shard_holds_what_was_written_or_nothing(content: bytes) -> None:
    with folder() as root:
        corpus = root / "corpus"
        corpus.mkdir()
        (corpus / table.shard_name("train", 0, 1)).write_bytes(content)
        read = answered(lambda: rows_and_images(corpus))
    if read is not None:
        rows, images = read
        columns = zip(rows["label"], rows["split"], rows["sha256"], strict=True)
        assert dict(zip(rows["image_id"], columns, strict=True)) == WRITTEN
        assert images == PICTURES


def layers(naming: str) -> bytes:
    names = ["transformer_blocks.0.attn.to_q", "single_transformer_blocks.1.attn.to_k"]
    draw = torch.Generator().manual_seed(0)
    pairs = {
        name: lora_layer(torch.randn(2, 8, generator=draw), torch.randn(8, 2, generator=draw))
        for name in names
    }
    if naming == "kohya":
        return adapter_bytes.kohya_bytes(pairs, {"rank": 2}, torch.float32)
    return adapter_bytes.diffusers_bytes(pairs, {"rank": 2})


def lora_layer(down: torch.Tensor, up: torch.Tensor) -> Any:
    from dermaflux.generators.flux_lora.files.kohya_naming import LoraLayer

    return LoraLayer(down, up, 2.0)


ADAPTERS = [layers("kohya"), layers("diffusers")]


def adapter(content: bytes, config: bytes | None = None) -> Any:
    with folder() as root:
        (root / "a.safetensors").write_bytes(content)
        if config is not None:
            (root / "adapter_config.json").write_bytes(config)
        return answered(lambda: adapter_file.read(root / "a.safetensors"))


@given(mutated(ADAPTERS))
def test_a_mutated_adapter(content: bytes) -> None:
    read = adapter(content)
    for layer in read.layers.values() if read is not None else ():
        assert bool(layer.up.isfinite().all() and layer.down.isfinite().all())
        assert layer.alpha == layer.alpha


WORDS = (
    "transformer lora_unet lora_transformer diffusion_model base_model.model unet 0 1 18 37 -1 attn"
    " transformer_blocks single_transformer_blocks double_blocks single_blocks 9999999999999999999"
    " to_q to_k to_out.0 img_attn.qkv img_attn_qkv linear1 lora_A lora_B lora_down lora_up weight"
    " alpha default lokr_w1 hada_w1_a dora_scale lora_te1 text_model diff bias norm x_embedder"
    " proj_out time_in.in_layer lora_unet_double_blocks_0_img_attn_qkv processor.qkv_lora1"
)
PARTS = st.sampled_from([*WORDS.split(), "", "ä", "\x1b[2J"])
NAMES = st.lists(PARTS, min_size=1, max_size=6).map(".".join) | st.tuples(
    st.sampled_from(["transformer.transformer_blocks.0.attn.to_q", "base_model.model.proj_out",
                     "lora_unet_single_blocks_1_linear1", "double_blocks.0.img_mod.lin"]),
    st.sampled_from([".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight",
                     ".alpha", ".lora_A.default.weight", ".diff", ".dora_scale"]),
).map("".join)  # fmt: skip
TENSORS = st.tuples(
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float64,
                     torch.float8_e4m3fn, torch.bool]),
    st.lists(st.sampled_from([0, 1, 2, 3, 8, 64]), max_size=3),
    st.sampled_from([0.0, 1.0, -1.0, 3e38, float("nan"), float("inf"), 1e-30]),
)  # fmt: skip
METADATA = st.dictionaries(
    st.sampled_from(["ss_base_model_version", "modelspec.architecture", lora.METADATA_KEY, "x",
                     lora.DIFFUSERS_CONFIG, "ss_network_alpha", "ss_network_module", "format"]),
    st.sampled_from(["", "{", "[]", "{}", "null", "flux1", "sdxl", "NaN", "1e400", '{"r": -1}',
                     "[" * 4000, '{"r": {"a": 1}, "lora_alpha": "x", "alpha_pattern": {"(": 1}}',
                     "x" * 3000, "\x1b[2J", "networks.lora_flux"]),
    max_size=4,
)  # fmt: skip
CONFIGS = st.none() | st.sampled_from(
    [b"", b"[]", b"{", b'{"lora_alpha": null}', b'{"lora_alpha": "x", "r": 2}', b"\xff\xfe",
     b'{"r": 2, "lora_alpha": 4, "alpha_pattern": {"(": 3}}', b"[" * 4000, b'{"use_dora": true}',
     b'{"r": 2, "lora_alpha": 1e999}', b'{"alpha_pattern": [1]}', b'{"use_rslora": "yes"}',
     b'{"alpha_pattern": {"(a+)+$": 2}, "lora_alpha": 2, "r": 2}',
     b'{"lora_alpha": true, "r": []}', b'{"peft_type": 3}', b'{"peft_type": "LOHA"}']
)  # fmt: skip


@given(st.dictionaries(NAMES, TENSORS, max_size=6), METADATA, CONFIGS)
def test_any_tensors_under_any_names(
    tensors: dict[str, tuple[torch.dtype, list[int], float]],
    metadata: dict[str, str],
    config: bytes | None,
) -> None:
    content = save(
        {
            name: torch.full(shape, value if dtype.is_floating_point else 1).to(dtype)
            for name, (dtype, shape, value) in tensors.items()
        },
        metadata=metadata or None,
    )
    adapter(content, config)


def state() -> bytes:
    with folder() as root:
        training(root).save()
        return (root / "state.pt").read_bytes()


def training(root: Path) -> TrainingState:
    weights = {"w": torch.nn.Parameter(torch.ones(3, 2)), "b": torch.nn.Parameter(torch.ones(2))}
    settings = Settings(5, 1e-3, 1, 1.0, 2, ema_decay=0.9)
    made = TrainingState("train", weights, settings, Checkpoint(root), main=True)
    (weights["w"].sum() + weights["b"].sum()).backward()
    made.update(1e-3)
    made.append("training", {"step": 1.0, "loss": 0.5})
    return made


STATE = state()


def flipped(content: bytes) -> bytes:
    """The checkpoint with one bit of a weight changed, which torch does not notice."""
    weight = torch.load(io.BytesIO(content), weights_only=True)["weights"]["w"]
    at = content.index(weight.numpy().tobytes())
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@given(mutated([STATE]))
@example(flipped(STATE))
def test_a_mutated_checkpoint_is_continued_or_removed(content: bytes) -> None:
    with folder() as root:
        made = training(root)
        made.save()
        before = {name: weight.detach().clone() for name, weight in made.weights.items()}
        made.close()
        (root / "state.pt").write_bytes(content)
        again = training(root)
        again.load()
        assert again.step == 1
        for name, weight in again.weights.items():
            assert torch.equal(weight, before[name])
        again.update(1e-3)
        again.close()


def pictures() -> dict[str, bytes]:
    benign, *_, malignant = PICTURES.values()
    return {"benign/1.png": benign, "malignant/2.png": malignant, "a/unknown/3.png": benign}


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pictures().items():
            archive.writestr(name, content)
    return out.getvalue()


def parquet(rows: list[dict[str, Any]], metadata: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), out)
    return out.getvalue()


HUB = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["benign", "x"]}}}})}
RELEASED = {
    "pool.zip": [zipped()],
    "pool.parquet": [
        parquet([{"image": {"bytes": b"a"}, "label": 0}, {"image": None, "label": 1}], HUB),
        parquet([{"image": b"a", "label": "malignant"}]),
    ],
}


@given(st.sampled_from(sorted(RELEASED)).flatmap(
    lambda name: st.tuples(st.just(name), mutated(RELEASED[name]))
))  # fmt: skip
def test_mutated_released_images_are_all_counted(file: tuple[str, bytes]) -> None:
    name, content = file
    with folder() as root:
        (root / name).write_bytes(content)
        read = answered(lambda: released.listing(root / name))
        if read is not None:
            images, refused, count = read
            assert len(images) + len({one.file for one in refused}) >= count
            assert {image.label for image in images} <= {"benign", "malignant"}
            for one in refused:
                assert one.reason.isprintable()


OURS: dict[str, list[bytes]] = {
    "x.json": [b'{\n "auc": 0.5,\n "arms": {"real": [1, 2]}\n}\n'],
    "x.csv": [b"image_id,label,probability\na,benign,0.5\nb,malignant,0.75\n"],
    "x.safetensors": [save({"a": torch.ones(2, 2), "b": torch.zeros(3, dtype=torch.int32)})],
}


@given(st.sampled_from(sorted(OURS)).flatmap(
    lambda name: st.tuples(st.just(name), mutated(OURS[name]))
))  # fmt: skip
def test_mutated_files_between_the_stages(file: tuple[str, bytes]) -> None:
    name, content = file
    with folder() as root:
        path = root / name
        path.write_bytes(content)
        if name == "x.json":
            answered(lambda: core_files.read_json(path, "the stage x", "auc"))
        elif name == "x.csv":
            rows = answered(
                lambda: core_files.read_csv(path, "the stage x", ("probability",), ("image_id",))
            )
            assert rows is None or rows["probability"].map(float).notna().all()
        else:
            answered(lambda: core_files.read_tensors(path, "the stage x"))


@given(mutated([parquet([{"image": {"path": "toy/a.jpg"}, "text": "round"}, {"image": None}])]))
def test_a_mutated_table_of_captions(content: bytes) -> None:
    with folder() as root:
        (root / "c.parquet").write_bytes(content)
        answered(lambda: match.read(root / "c.parquet", ["toy/a"]))


def test_the_whole_files_are_read() -> None:
    """Otherwise the mutations would show nothing but refusals."""
    for content in ADAPTERS:
        assert len(adapter(content).layers) == 2
    for name, contents in RELEASED.items():
        for content in contents:
            with folder() as root:
                (root / name).write_bytes(content)
                images, refused, count = released.listing(root / name)
                assert len(images) + len(refused) == count > 0
    with folder() as root, pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Path("corpus").mkdir()
        Path("corpus", table.shard_name("train", 0, 1)).write_bytes(SHARD)
        assert len(rows_and_images(Path("corpus"))[0]) == len(ROWS)
        shutil.rmtree("corpus")
        with pytest.raises(InputError) as caught:
            rows_and_images(Path("corpus"))
        check_sentence(str(caught.value))
