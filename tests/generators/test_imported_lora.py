from __future__ import annotations

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
from small_generator import FINETUNE, Workspace

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.generators import finetune, synthesize
from dermaflux.generators.flux_lora.files import adapter_file, exported, imported, kohya_naming
from dermaflux.generators.flux_lora.files.kohya_naming import Layer
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.flux_lora.sampling.load import open_generator
from dermaflux.generators.flux_lora.sampling.sample import Sampler, sample
from dermaflux.params.load import load
from dermaflux.tracking.runs import Silent


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_exported_and_imported_again_it_makes_the_same_image(
    workspace: Workspace, tmp_path: Path, targets: lora.Targets
) -> None:
    backbone = awakened_backbone(workspace.backbone, tmp_path / "backbone")
    folder = draw_generator(backbone, tmp_path / "generator", targets, rank=3, alpha=4.0)
    file, again = tmp_path / "out" / "kohya.safetensors", tmp_path / "again"
    exported.export(file, "kohya", "fp32", folder)
    section = FINETUNE.model_copy(update={"imported": str(file)})
    imported.write(section, backbone, again, Silent())

    facts = json.loads((again / "finetune.json").read_text())
    assert (facts["targets"], facts["rank"], facts["alpha"]) == (targets, 3, 4)
    assert facts["imported"] == "kohya.safetensors"
    kept, made = adapter_file.read(folder / lora.WEIGHTS), adapter_file.read(again / lora.WEIGHTS)
    assert facts["trainable_parameters"] == kept.parameters == made.parameters
    for name, layer in kept.layers.items():
        assert torch.equal(layer.down, made.layers[name].down)
        assert torch.equal(layer.up, made.layers[name].up)
    weights = synthesize.read_weights(again, backbone)
    assert (weights.text_policy, weights.base_dtype) == ("trim", "fp32")
    sampler = Sampler(2, 3.5, 128, weights.text_policy)
    pictures = [
        sample(open_generator(one, backbone, "fp32"), sampler, ["a benign lesion"], [3])
        for one in (folder, again)
    ]
    assert (pictures[0] == pictures[1]).all()


def test_the_stage_takes_it_in_place_of_training(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / ".dvc").mkdir()
    paths.BACKBONE.parent.mkdir()
    paths.BACKBONE.symlink_to(workspace.backbone)
    folder = draw_generator(workspace.backbone, tmp_path / "drawn")
    exported.export(tmp_path / "kohya.safetensors", "kohya", "fp32", folder)
    params = load(Path(__file__).parents[2] / "params.yaml")
    section = params.finetune.model_copy(update={"imported": "kohya.safetensors"})
    finetune.run(params.model_copy(update={"finetune": section}))
    made = adapter_file.read(paths.GENERATOR / lora.WEIGHTS)
    assert made.layers.keys() == adapter_file.read(folder / lora.WEIGHTS).layers.keys()
    assert (finetune.GRID.parent / lora.SETTINGS).exists()


def test_a_layer_fused_from_one_matrix_imports_with_the_same_product(
    workspace: Workspace, tmp_path: Path
) -> None:
    # What sd-scripts trains by default, as the authors did: dense, one `down` for all parts.
    draw = torch.Generator().manual_seed(0)
    sizes = {"double_blocks_1_img_attn_qkv": 384, "single_blocks_3_linear1": 896}
    fused = {
        f"lora_unet_{name}": Layer(
            torch.randn(4, 128, generator=draw), torch.randn(size, 4, generator=draw), 2.0
        )
        for name, size in sizes.items()
    }
    file = tmp_path / "authors.safetensors"
    file.write_bytes(adapter_file.kohya_bytes(kohya_naming.separate(fused), {}, torch.bfloat16))
    section = FINETUNE.model_copy(update={"imported": str(file)})
    imported.write(section, workspace.backbone, tmp_path / "generator", Silent())
    again = kohya_naming.fused(adapter_file.read(tmp_path / "generator" / lora.WEIGHTS).layers)
    for name, layer in fused.items():
        assert again[name].rank == 4
        assert torch.equal(again[name].product(), layer.to(torch.bfloat16).product())


def test_a_lora_of_another_architecture_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    section = FINETUNE.model_copy(update={"imported": str(file)})

    def refused(name: str, outputs: int, inputs: int) -> str:
        layer = Layer(torch.ones(2, inputs), torch.ones(outputs, 2), 2.0)
        file.write_bytes(adapter_file.diffusers_bytes({name: layer}, {}))
        with pytest.raises(InputError) as error:
            imported.write(section, workspace.backbone, tmp_path / "generator", Silent())
        assert not (tmp_path / "generator").exists()
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
        section = FINETUNE.model_copy(update=update)
        with pytest.raises(InputError, match=match):
            imported.write(section, workspace.backbone, tmp_path / "generator", Silent())
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
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dermaflux.errors import InputError\n"
        "from dermaflux.generators.flux_lora.files import imported\n"
        "from dermaflux.params import Finetune\n"
        "from dermaflux.tracking.runs import Silent\n"
        "for name in ('un/known', 'StathisGln/DermaFlux'):\n"
        f"    section = Finetune(imported=name, imported_revision='{_COMMIT}')\n"
        "    try:\n"
        "        imported.write(section, Path(sys.argv[1]), Path(sys.argv[2]), Silent())\n"
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
    assert "was trained with text policy" not in done.stdout  # the file itself says `trim`
    facts = json.loads((folder / "finetune.json").read_text())
    assert facts["imported"] == f"StathisGln/DermaFlux@{_COMMIT}/flux_lora_64_64.safetensors"
    assert facts["targets"] == "all-linear"
