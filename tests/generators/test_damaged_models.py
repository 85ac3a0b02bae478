"""Damaged files of models/backbone/ and models/generator/, each really damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_adapter import CPU, draw_generator
from small_generator import Workspace

from dermaflux.errors import InputError
from dermaflux.generators.flux_lora.files import exported
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.sampling.generator import GENERATOR
from dermaflux.generators.protocol import FACTS

DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "of another kind": lambda content: b"[]",
    "without content": lambda content: b"{}",
    "absent": lambda content: None,
}


def _damage(file: Path, kind: str) -> None:
    content = DAMAGE[kind](file.read_bytes())
    file.unlink()
    if content is not None:
        file.write_bytes(content)


@pytest.mark.parametrize("kind", ["cut", "of another kind", "absent"])
def test_a_damaged_backbone_is_told_in_one_sentence(
    kind: str, workspace: Workspace, tmp_path: Path
) -> None:
    files = [path.relative_to(workspace.backbone) for path in workspace.backbone.rglob("*.*")]
    assert len(files) > 8
    for name in sorted(files):
        if name.name in (pipeline.LICENCE_FILE, "README.md"):
            continue
        backbone = tmp_path / "backbone"
        shutil.copytree(workspace.backbone, backbone)
        _damage(backbone / name, kind)
        found = []
        try:
            pipeline.load(backbone, "fp32", CPU)
        except InputError as error:
            found.append(str(error))
        shutil.rmtree(backbone)
        # transformers has defaults for the small files that say little.
        assert found or name.suffix == ".json", name
        for sentence in found:
            assert sentence.endswith(
                ("run the stage backbone, which writes it", "run the stage `backbone`")
            )
            assert kind not in ("cut", "empty", "of another kind") or str(name) in sentence


@pytest.mark.parametrize("part", pipeline.PARTS)
def test_weights_of_another_part_are_no_reason_to_draw_some(
    part: str, workspace: Workspace, tmp_path: Path
) -> None:
    backbone = shutil.copytree(workspace.backbone, tmp_path / "backbone")
    pipeline.load(backbone, "fp32", CPU)
    other = "vae" if part != "vae" else "transformer"
    source = next((backbone / other).glob("*.safetensors"))
    shutil.copy(source, next((backbone / part).glob("*.safetensors")))
    with pytest.raises(
        InputError, match=f"{part} is damaged .its weights lack .* run the stage backbone"
    ):
        pipeline.load(backbone, "fp32", CPU)


def test_a_pin_that_names_nothing(tmp_path: Path) -> None:
    for content in ("", "[]", "{}", '{"repository": 3, "revision": null}', "[" * 100_000):
        (tmp_path / pipeline.PIN).write_text(content)
        with pytest.raises(InputError, match="pin.json is damaged .* run .*backbone"):
            pipeline.reference(tmp_path)


@pytest.mark.parametrize("kind", ["cut", "empty", "of another kind", "without content"])
def test_a_damaged_adapter_is_told_before_the_backbone_is_loaded(
    kind: str, workspace: Workspace, tmp_path: Path
) -> None:
    folder = draw_generator(workspace.backbone, tmp_path / "generator")
    settings = {"steps": 2, "guidance": 3.5}
    GENERATOR.open(workspace.models(folder), settings)
    for name in (lora.WEIGHTS, FACTS):
        whole = (folder / name).read_bytes()
        _damage(folder / name, kind)
        with pytest.raises(InputError, match=f"{name} is damaged .* run .*finetune, which"):
            GENERATOR.open(workspace.models(folder), settings)
        if name == lora.WEIGHTS:
            with pytest.raises(InputError, match=f"{name} is damaged .* run .*finetune, which"):
                exported.export(tmp_path / "a.safetensors", "kohya", "fp32", folder)
        (folder / name).write_bytes(whole)


def test_values_of_an_adapter_and_its_facts_are_checked(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = draw_generator(workspace.backbone, tmp_path / "generator")
    settings = {"steps": 2, "guidance": 3.5}
    whole = (folder / lora.WEIGHTS).read_bytes()
    (folder / lora.WEIGHTS).write_bytes(whole[:-4] + b"\x00\x00\xc0\x7f")  # a NaN in float32
    with pytest.raises(InputError, match="not finite in .* run the stage finetune"):
        GENERATOR.open(workspace.models(folder), settings)
    (folder / lora.WEIGHTS).write_bytes(whole)
    facts = json.loads((folder / FACTS).read_text())
    for name in ("prompt_padding", "base_dtype"):
        (folder / FACTS).write_text(json.dumps(facts | {name: "fp12"}))
        with pytest.raises(InputError, match=f"{name} is 'fp12' and not one of"):
            GENERATOR.open(workspace.models(folder), settings)
