"""The hardware that computes, as the system names it: a speed means nothing without it."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path


def processor() -> str:
    """The processor as the system names it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def device() -> str:
    """The GPU that a process uses which has loaded torch, else the processor and its cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        from dermaflux.core.devices import automatic_device

        if automatic_device().type == "cuda":
            return str(torch.cuda.get_device_name())
    return f"{processor()}, {os.cpu_count() or 1} cores"
