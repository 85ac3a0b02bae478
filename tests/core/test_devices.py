from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from ruamel.yaml import YAML

from dermaflux import cli, launch
from dermaflux.core import devices
from dermaflux.errors import InputError
from dermaflux.params.load import load

ROOT = Path(__file__).parents[2]
CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of "
    "which 512.00 MiB is free. Process 7 has 23.13 GiB memory in use."
)


def _raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        call()
    return caught.value


def _swallowed() -> None:
    try:
        torch.empty(10**15)
    except RuntimeError:
        raise InputError("the weights do not fit; give others") from None


REAL = {
    "torch": lambda: torch.empty(10**15),
    "numpy": lambda: np.ones(10**14),
    "Python": lambda: bytearray(10**15),
    "Arrow": lambda: pa.allocate_buffer(10**15),
    "wrongly explained": _swallowed,
}


@pytest.mark.parametrize("library", REAL)
def test_real_errors_of_too_little_memory_are_recognised(library: str) -> None:
    shortage = devices.memory_shortage(_raised(REAL[library]))
    assert shortage is not None
    assert shortage.startswith("this machine's memory is full")


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError(CUDA), RuntimeError("CUDA error: out of memory"),
     RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
     RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB, other allocations: 1 MB)")],
)  # fmt: skip
def test_errors_of_a_full_gpu_are_recognised(error: RuntimeError) -> None:
    assert str(devices.memory_shortage(error)).startswith("the GPU's memory is full")


@pytest.mark.parametrize(
    "error",
    [ValueError("out of memory"), RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
     InputError("a.csv is missing; name another"), OSError(28, "No space left on device")],
)  # fmt: skip
def test_other_errors_are_not(error: Exception) -> None:
    assert devices.memory_shortage(error) is None


COMMANDS = {
    "backbone": ("generators.backbone", [], "backbone.tiny.flow_batch"),
    "caption": ("captions.caption", [], "caption.batch"),
    "finetune": ("generators.finetune", [], "finetune.flux_lora.batch_tokens"),
    "synthesize": ("generators.synthesize", [], "synthesize.batch"),
    "audit": ("audit.audit", [], "audit.features"),
    "train": ("classifiers.train", ["--architecture", "vit", "--seed", "0"], "train.batch"),
    "distill": ("classifiers.distill", ["--architecture", "vit", "--seed", "0"], "distill.batch"),
    "evaluate": (
        "classifiers.evaluate",
        ["--architecture", "vit", "--seed", "0"],
        "evaluate.batch",
    ),
    "zero_shot": ("classifiers.zero_shot", [], "zero_shot.batch"),
    "predict": ("registry.predict", ["a.jpg"], "fewer images"),
    "promote": ("registry.promote", [], "train.image_size"),
    "report": ("reporting.report", [], "report.grid_images"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_stage_says_what_to_lower(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, arguments, lower = COMMANDS[command]

    def run(*_: object) -> None:
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(f"dermaflux.{module}.run", run)
    monkeypatch.setattr(sys, "argv", ["dermaflux", command, *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dermaflux: {command}: the GPU's memory is full (Tried to allocate 2.0")
    assert lower in line


def test_what_to_lower_exists() -> None:
    """Each parameter that an advice names is one of params.yaml."""
    from dermaflux.params.memory import _CHANGES, _SHORT

    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params = load(ROOT / "params.yaml")
    words = [*_SHORT.values(), *sum(_CHANGES.values(), ())]
    for section in (params.finetune, params.synthesize):
        for generator in ("flux_lora", "latent_ddpm", "vap"):
            words += section.settings(generator).less_memory(params.runtime)
    names = [word.rstrip(",") for text in words for word in text.split() if "." in word]
    assert len(names) > 15
    for name in names:
        section = values
        for key in name.split("."):
            section = section[key]


FILL = """
import resource, sys
import torch
from dermaflux import cli
from dermaflux.generators import finetune

def run(params):
    here = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + 2**30, here + 2**30))
    held = []
    for size in (2**26, 2**20, 2**14):
        try:
            while True:
                held.append(torch.ones(size, dtype=torch.uint8) if TENSORS else bytearray(size))
        except (RuntimeError, MemoryError):
            if size == 2**14:
                raise

finetune.run = run
sys.argv = ["dermaflux", "finetune"]
cli.main()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size from /proc")
@pytest.mark.parametrize("tensors", [True, False])
def test_a_stage_that_has_filled_its_memory_ends_in_one_sentence(tensors: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL.replace("TENSORS", str(tensors))], cwd=ROOT, check=False,
        capture_output=True, text=True, env=os.environ | {"MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("dermaflux: finetune: this machine's memory is full")
    assert "lower finetune.flux_lora.batch_tokens" in line


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_process_of_a_launch_is_explained(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "dermaflux"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=r"killed \(signal 9\).*batch_tokens"):
        launch.launch(f"--num_processes {processes}", "finetune")


@pytest.mark.parametrize(("present", "kind"), [(True, "cuda"), (False, "cpu")])
def test_the_gpu_computes_where_there_is_one(
    present: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert devices.automatic_device() == torch.device(kind)


def test_the_device_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    assert devices.automatic_device().type == "cpu"
    for wrong in ("cuda:7", "gpu", "", "mps"):
        monkeypatch.setenv(devices.VARIABLE, wrong)
        with pytest.raises(InputError, match=f"{devices.VARIABLE} is '{wrong}'"):
            devices.automatic_device()


def test_apples_gpu_is_used_when_named_and_its_absence_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    devices._say_unused_gpu.cache_clear()
    assert devices.automatic_device().type == "cpu"
    assert devices.automatic_device().type == "cpu"
    assert capsys.readouterr().out.count("Apple's GPU (MPS)") == 1
    monkeypatch.setenv(devices.VARIABLE, "mps")
    assert devices.automatic_device().type == "mps"
    assert capsys.readouterr().out == ""


NVRM = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build\n"
UNUSABLE = {
    "no driver": ("13.2", None, "no driver of the NVIDIA GPU is loaded; .* needs driver 580 or"),
    "old driver": ("13.2", "535.104.05", r"driver is 535\.104\.05, but torch .* needs driver 580"),
    "old enough": (
        "12.8",
        "535.104.05",
        r"cannot open the NVIDIA GPU, whose driver is 535\.104\.05",
    ),
    "no CUDA": (
        None,
        "580.65.06",
        "is built without CUDA, so it does not use the NVIDIA GPU; inst",
    ),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_gpu_that_torch_cannot_use_is_told_once_with_what_it_needs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cuda, driver, sentence = UNUSABLE[kind]
    for name, numbers in (("0", ("0x10de", "0x030200")), ("1", ("0x8086", "0x060000"))):
        (tmp_path / "pci" / name).mkdir(parents=True)
        for file, number in zip(("vendor", "class"), numbers, strict=True):
            (tmp_path / "pci" / name / file).write_text(f"{number}\n")
    if driver:
        (tmp_path / "version").write_text(NVRM.format(driver))
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_PCI", tmp_path / "pci")
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    devices._say_unused_gpu.cache_clear()
    assert devices.automatic_device() == devices.automatic_device() == torch.device("cpu")
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(f"^computing on the CPU: .*{sentence}", line)
    with pytest.raises(InputError, match=sentence):
        devices.require_gpu("the model", 2 * 10**9, torch.device("cpu"))
    (tmp_path / "pci" / "0" / "vendor").write_text("0x1002\n")
    devices._say_unused_gpu.cache_clear()
    devices.automatic_device()
    assert capsys.readouterr().out == ""


def test_a_billion_parameters_need_a_gpu_or_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    with pytest.raises(InputError, match=r"^FLUX has 11\.9 billion .* set DERMAFLUX_DEVICE=cpu"):
        devices.require_gpu("FLUX", 11_901_408_320, cpu)
    devices.require_gpu("FLUX", 11_901_408_320, gpu)
    devices.require_gpu("a small one", devices.LARGEST_ON_CPU, cpu)
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    devices.require_gpu("FLUX", 11_901_408_320, cpu)


@pytest.mark.parametrize(
    ("runtime", "continues"),
    [
        (
            {},
            "set runtime.finetune.gradient_checkpointing to full or set runtime.finetune.text_cac",
        ),
        ({"gradient_checkpointing": "full"}, "set runtime.finetune.text_cache to true and run the"),
        ({"gradient_checkpointing": "full", "text_cache": True}, "free memory that other programs"),
    ],
)
def test_the_change_that_continues_a_training_stands_first(
    runtime: dict[str, object], continues: str
) -> None:
    from dermaflux.params.memory import _advice

    params = load(ROOT / "params.yaml")
    finetune = params.runtime.finetune.model_copy(update=runtime)
    changed = params.model_copy(
        update={"runtime": params.runtime.model_copy(update={"finetune": finetune})}
    )
    advice = _advice("finetune", changed)
    assert advice.startswith(continues)
    first, _, anew = advice.partition("; or, from the beginning, ")
    assert "continues where this run stopped" in first
    assert "batch_tokens" in anew
    # Every parameter before the semicolon is outside the fingerprint of a training.
    assert all(word.startswith("runtime.") for word in first.split() if "finetune." in word)
