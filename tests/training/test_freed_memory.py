from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from dermaflux.training.freed_memory import retain_freed_memory
if sys.argv[1] == "retained":
    retain_freed_memory()
def step():
    np.ones(8_000_000)  # 64 MB, freed at once
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_a_step_reuses_the_memory_of_the_last_one_without_page_faults() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))
        for how in ("returned", "retained")
    }
    assert faults["retained"] * 10 < faults["returned"], faults
