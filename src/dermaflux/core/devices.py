"""The device that computes, and how to tell that its memory, or the machine's, ran out."""

from __future__ import annotations

import errno
import functools
import os
import re
from typing import TYPE_CHECKING

from dermaflux.errors import InputError, causes, quoted

if TYPE_CHECKING:
    import torch

VARIABLE = "DERMAFLUX_DEVICE"
"""Environment variable that names the device: cpu, cuda or mps."""
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
    if named is None and present["mps"] and not present["cuda"]:
        _say_unused_mps()
    return torch.device(named or ("cuda" if present["cuda"] else "cpu"))


@functools.cache
def _say_unused_mps() -> None:
    if os.environ.get("RANK", "0") == "0":
        print(
            "computing on the CPU: this project has not been run on Apple's GPU (MPS); set "
            f"{VARIABLE}=mps to try it",
            flush=True,
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
