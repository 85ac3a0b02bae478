"""Keeps freed memory in the process, for training loops on a CPU.

glibc returns large freed blocks to the system at once, and a training step asks for the same blocks
again: tens of thousands of page faults a step. Reads and writes nothing.
"""

from __future__ import annotations

import ctypes

# Names and numbers of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**30  # bytes


def retain_freed_memory() -> None:
    """Let the next step reuse what the last one freed; does nothing where libc is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _LARGEST)
