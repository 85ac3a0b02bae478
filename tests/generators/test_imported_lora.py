from __future__ import annotations

import dataclasses
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from drawn_adapter import awakened_backbone, draw_generator
from kohya_layers import separate
from small_generator import LORA, Workspace

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.generators import finetune
from dermaflux.generators.flux_lora.files import (
    adapter_bytes,
    adapter_file,
    exported,
    imported,
    kohya_naming,
)
from dermaflux.generators.flux_lora.files.kohya_naming import LoraLayer
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.model.options import Targets
from dermaflux.generators.flux_lora.sampling.generator import GENERATOR
from dermaflux.generators.flux_lora.training.trainer import TRAINER
from dermaflux.generators.protocol import FACTS, Condition
from dermaflux.params.load import load
from dermaflux.tracking.runs import Silent


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_exported_and_imported_again_it_makes_the_same_image(
    workspace: Workspace, tmp_path: Path, targets: Targets
) -> None:
    backbone = awakened_backbone(workspace.backbone, tmp_path / "backbone")
    folder = draw_generator(backbone, tmp_path / "generator", targets, rank=3, alpha=4.0)
    file, again = tmp_path / "out" / "kohya.safetensors", tmp_path / "again"
    exported.export(file, "kohya", "fp32", folder)
    settings = LORA.model_copy(update={"imported": str(file)})
    run = dataclasses.replace(workspace.training_run(settings=settings), backbone=backbone)
    run = dataclasses.replace(run, grid=tmp_path / "report" / "grid.png")
    finetune.install("flux_lora", TRAINER, run, again)

    facts = json.loads((again / FACTS).read_text())
    assert (facts["targets"], facts["rank"], facts["alpha"]) == (targets, 3, 4)
    assert facts["imported"] == "kohya.safetensors"
    original = adapter_file.read(folder / lora.WEIGHTS)
    copied = adapter_file.read(again / lora.WEIGHTS)
    assert facts["trainable_parameters"] == original.parameters == copied.parameters
    for name, layer in original.layers.items():
        assert torch.equal(layer.down, copied.layers[name].down)
        assert torch.equal(layer.up, copied.layers[name].up)
    condition = Condition("benign", "a benign lesion", 128, 3)
    images = []
    for generator in (folder, again):
        models = dataclasses.replace(workspace.models(generator), backbone=backbone)
        sampler = GENERATOR.open(models, {"steps": 2, "guidance": 3.5})
        assert sampler.settings["prompt_padding"] == "trim"
        images.append(sampler([condition]))
    assert (images[0] == images[1]).all()


def test_the_stage_takes_it_in_place_of_training(
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / ".dvc").mkdir()
    paths.BACKBONE.parent.mkdir()
    paths.BACKBONE.symlink_to(workspace.backbone)
    folder = draw_generator(workspace.backbone, tmp_path / "drawn")
    exported.export(tmp_path / "kohya.safetensors", "kohya", "fp32", folder)
    params = load(Path(__file__).parents[2] / "params.yaml")
    settings = LORA.model_copy(update={"imported": "kohya.safetensors"})
    section = params.finetune.model_copy(update={"flux_lora": settings})
    finetune.run(params.model_copy(update={"finetune": section}))
    adapter = adapter_file.read(paths.GENERATOR / lora.WEIGHTS)
    assert adapter.layers.keys() == adapter_file.read(folder / lora.WEIGHTS).layers.keys()
    facts = json.loads((finetune.GRID.parent / FACTS).read_text())
    assert "imported from kohya.safetensors" in facts["summary"]
    line = "finetune: nothing was trained: the LoRA was imported from kohya.safetensors, 28 layers"
    assert capsys.readouterr().out.count(line) == 1


def test_a_layer_fused_from_one_matrix_imports_with_the_same_product(
    workspace: Workspace, tmp_path: Path
) -> None:
    # What sd-scripts trains by default, as the authors did: dense, one `down` for all parts.
    draw = torch.Generator().manual_seed(0)
    sizes = {"double_blocks_1_img_attn_qkv": 384, "single_blocks_3_linear1": 896}
    fused = {
        f"lora_unet_{name}": LoraLayer(
            torch.randn(4, 128, generator=draw), torch.randn(size, 4, generator=draw), 2.0
        )
        for name, size in sizes.items()
    }
    file = tmp_path / "authors.safetensors"
    file.write_bytes(adapter_bytes.kohya_bytes(separate(fused), {}, torch.bfloat16))
    settings = LORA.model_copy(update={"imported": str(file)})
    imported.write(settings, workspace.backbone, tmp_path, Silent())
    again = kohya_naming.fused(adapter_file.read(tmp_path / lora.WEIGHTS).layers)
    for name, layer in fused.items():
        assert again[name].rank == 4
        assert torch.equal(again[name].product(), layer.to(torch.bfloat16).product())


def test_a_lora_of_another_architecture_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    settings = LORA.model_copy(update={"imported": str(file)})

    def refused(name: str, outputs: int, inputs: int) -> str:
        layer = LoraLayer(torch.ones(2, inputs), torch.ones(outputs, 2), 2.0)
        file.write_bytes(adapter_bytes.diffusers_bytes({name: layer}, {}))
        with pytest.raises(InputError) as error:
            imported.write(settings, workspace.backbone, tmp_path, Silent())
        assert not (tmp_path / lora.WEIGHTS).exists()
        return str(error.value)

    assert "which the backbone tiny does not have" in refused(
        "transformer_blocks.18.attn.to_q", 128, 128
    )
    assert "3072 x 3072 for transformer_blocks.0.attn.to_q, which is 128 x 128" in refused(
        "transformer_blocks.0.attn.to_q", 3072, 3072
    )


def test_names_that_cannot_be_imported(workspace: Workspace, tmp_path: Path) -> None:
    for update, match in [
        ({"imported": "no/such/file.safetensors"}, "neither a file nor a hub id"),
        ({"imported": "StathisGln/DermaFlux"}, "pin the commit"),
    ]:
        settings = LORA.model_copy(update=update)
        with pytest.raises(InputError, match=match):
            imported.write(settings, workspace.backbone, tmp_path, Silent())
    with pytest.raises(InputError, match="--format is 'ckpt'"):
        exported.export(tmp_path / "a.safetensors", "ckpt", "fp32", tmp_path)
    with pytest.raises(InputError, match="run the stage `finetune`"):
        exported.export(tmp_path / "a.safetensors", "kohya", "fp32", tmp_path)


_COMMIT = "a" * 40


class _Hub(http.server.BaseHTTPRequestHandler):
    """Serves one repository with one LoRA, as the hub's client asks for it."""

    file: Path
    name = "StathisGln/DermaFlux"

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, body: bool) -> None:
        wanted = f"/{self.name}/resolve/{_COMMIT}/flux_lora_64_64.safetensors"
        content = self.file.read_bytes() if self.path == wanted else b"{}"
        self.send_response(200 if self.path == wanted else 404)
        self.send_header("Content-Length", str(len(content)))
        if self.path == wanted:
            self.send_header("ETag", '"abc"')
            self.send_header("X-Repo-Commit", _COMMIT)
        else:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_the_authors_lora_comes_from_the_hub_at_a_pinned_commit(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = draw_generator(workspace.backbone, tmp_path / "drawn", "all-linear")
    _Hub.file = tmp_path / "kohya.safetensors"
    exported.export(_Hub.file, "kohya", "bf16", folder)
    shutil.rmtree(folder)
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dermaflux.errors import InputError\n"
        "from dermaflux.generators.flux_lora.files import imported\n"
        "from dermaflux.generators.flux_lora.settings import Finetune\n"
        "from dermaflux.tracking.runs import Silent\n"
        "for name in ('un/known', 'StathisGln/DermaFlux'):\n"
        f"    section = Finetune(imported=name, imported_revision='{_COMMIT}')\n"
        "    try:\n"
        "        facts = imported.write(section, *map(Path, sys.argv[1:]), Silent())\n"
        "        print(facts['imported'], facts['targets'])\n"
        "    except InputError as error:\n"
        "        print(error)\n"
    )
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hub"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace.backbone), str(folder)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    server.shutdown()
    assert done.returncode == 0, done.stderr
    assert "un/known is neither a file nor a repository" in done.stdout
    assert "was trained with prompt padding" not in done.stdout  # the file itself says `trim`
    origin = f"StathisGln/DermaFlux@{_COMMIT}/flux_lora_64_64.safetensors"
    assert f"{origin} all-linear" in done.stdout
    assert (folder / lora.WEIGHTS).exists()
