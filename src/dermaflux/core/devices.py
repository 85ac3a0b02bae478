"""The device that computes, its free memory, and how to tell that memory ran out."""

from __future__ import annotations

import errno
import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.errors import InputError, causes, quoted

if TYPE_CHECKING:
    import torch

VARIABLE = "DERMAFLUX_DEVICE"
"""Environment variable that names the device: cpu, cuda or mps."""
LARGEST_ON_CPU = 1_000_000_000
"""Parameters of the largest model that is computed on a CPU without being asked to."""
_PCI, _DRIVER = Path("/sys/bus/pci/devices"), Path("/proc/driver/nvidia/version")
_NVIDIA, _DISPLAY = "0x10de", "0x03"
"""PCI's number of the vendor, and of the class that graphics processors belong to."""
_DRIVERS = {"11": 450, "12": 525, "13": 580}
"""Major version of CUDA -> oldest driver for all its minor versions, as the guide says:
https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"""
_GPU_FULL = re.compile(
    r"(?:CUDA|HIP|XPU|MPS backend|GPU)[^\n]{0,80}out of memory"
    r"|(?:CUBLAS|CUDNN|CUSOLVER|HIPBLAS)_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_RAM_FULL = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|std::bad_alloc"
    r"|Cannot allocate memory|excessive memory usage|killed by signal: Killed"
)
_DETAIL = re.compile(
    r"[Tt]ried to allocate [\d.,]+ \w+|GPU \d+ has a total capacity of [\d.]+ \w+"
    r"|of which [\d.]+ \w+ is free|Unable to allocate [\d.]+ \w+"
)


def automatic_device() -> torch.device:
    """The GPU where torch finds one through CUDA or ROCm, else the CPU.

    `VARIABLE` overrides the choice; `InputError` when it names a device that is not there. Apple's
    MPS is used only when it is named, because no stage has been run on one.
    """
    import torch

    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    named = os.environ.get(VARIABLE)
    if named is not None and not present.get(named, False):
        there = ", ".join(name for name, found in present.items() if found)
        raise InputError(
            f"{VARIABLE} is {quoted(named)}, which this machine does not have; unset it or set it "
            f"to one of {there}"
        )
    if named is None and not present["cuda"]:
        _say_unused_gpu(mps=present["mps"])
    return torch.device(named or ("cuda" if present["cuda"] else "cpu"))


@functools.cache
def _say_unused_gpu(mps: bool) -> None:
    reason = _unusable_gpu()
    if mps:
        reason = f"this project has not been run on Apple's GPU (MPS); set {VARIABLE}=mps to try it"
    if reason and os.environ.get("RANK", "0") == "0":
        print(f"computing on the CPU: {reason}", flush=True)


def _unusable_gpu() -> str | None:
    """Why torch does not use this machine's NVIDIA GPU; None where Linux shows no such device."""
    import torch

    if not any(_is_nvidia_gpu(device) for device in _PCI.glob("*")):
        return None
    torch_is = f"torch {torch.__version__}"
    if torch.version.cuda is None:
        return (
            f"{torch_is} is built without CUDA, so it does not use the NVIDIA GPU; install the "
            "build for CUDA"
        )
    major = torch.version.cuda.split(".")[0]
    needed = _DRIVERS.get(major)
    needs = f"{torch_is} for CUDA {torch.version.cuda} needs driver {needed} or newer"
    version = _DRIVER.read_text(encoding="utf-8", errors="replace") if _DRIVER.is_file() else ""
    found = re.search(r"\b(\d{3})\.\d+(?:\.\d+)?\b", version)
    if found is None:
        return f"no driver of the NVIDIA GPU is loaded; {needs}"
    if needed is not None and int(found[1]) < needed:
        return f"the NVIDIA GPU's driver is {found[0]}, but {needs}"
    return (
        f"{torch_is} cannot open the NVIDIA GPU, whose driver is {found[0]}; `nvidia-smi` shows "
        "its state"
    )


def _is_nvidia_gpu(device: Path) -> bool:
    try:
        vendor, kind = ((device / name).read_text() for name in ("vendor", "class"))
    except OSError:
        return False
    return vendor.strip() == _NVIDIA and kind.startswith(_DISPLAY)


def device_name(device: torch.device) -> str:
    """What the device is called: a GPU's model, or `CPU`."""
    if device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(device))
    return {"cpu": "CPU", "mps": "Apple's GPU (MPS)"}.get(device.type, device.type)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device, whoever uses the rest."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil  # type: ignore[import-untyped]

    return int(psutil.virtual_memory().available)


def require_gpu(what: str, parameters: int, device: torch.device) -> None:
    """Refuse to compute a large model on a CPU that nobody asked for.

    Raises `InputError` for over `LARGEST_ON_CPU` parameters, unless `VARIABLE` says `cpu`.
    """
    if device.type != "cpu" or parameters <= LARGEST_ON_CPU or os.environ.get(VARIABLE) == "cpu":
        return
    raise InputError(
        f"{what} has {parameters / 1e9:.1f} billion parameters, over the "
        f"{LARGEST_ON_CPU / 1e9:.0f} billion that are computed on a CPU unasked, and "
        f"{_unusable_gpu() or 'torch finds no GPU'}; compute on a GPU, or set {VARIABLE}=cpu to "
        "wait for the CPU"
    )


def memory_shortage(error: BaseException) -> str | None:
    """Half a sentence on the memory that ran out and led to `error`; None for other errors.

    Known are torch's and the libraries' errors on a GPU, and `MemoryError`, torch's allocator, the
    system's ENOMEM and killed worker processes for the machine's own memory.
    """
    for cause in causes(error):
        text = str(cause)[:5_000]
        name = type(cause).__name__
        gpu = name == "OutOfMemoryError" or _GPU_FULL.search(text)
        ram = isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM
        if gpu or ram or (isinstance(cause, (RuntimeError, OSError)) and _RAM_FULL.search(text)):
            where = "the GPU's memory" if gpu else "this machine's memory"
            detail = ", ".join(_DETAIL.findall(text))
            return f"{where} is full" + (f" ({detail})" if detail else "")
    return None
