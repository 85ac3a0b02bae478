"""What `faults.py` measured, as a table and as a list of what went wrong."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

STOP_SECONDS = 10.0
"""Within which a stage has to stop after SIGTERM."""
Result = dict[str, Any]


def sentence(result: Result, fault: str) -> str:
    """A cell of the table."""
    if "not_applicable" in result:
        return str(result["not_applicable"])
    status = result["exit_status"]
    parts = []
    if fault in ("kill -9", "SIGTERM"):
        parts.append(f"{result['moments']} moments")
        if fault == "SIGTERM":
            parts.append(f"stopped within {result['seconds']:.1f} s")
    elif fault != "checkpoint cut":
        statuses = status if isinstance(status, list) else [status]
        parts.append("exit " + ", ".join(map(str, statuses)))
    parts.append("TRACEBACK" if result["traceback"] else "no traceback")
    parts.append("then the same bytes" if result["same_bytes"] else "then OTHER BYTES")
    return "; ".join(parts)


def table(results: Result, faults: Collection[str]) -> str:
    """Rows of stages, columns of faults, as Markdown."""
    stages = results["stages"]
    lines = [f"| stage | {' | '.join(faults)} |", f"| --- |{' --- |' * len(faults)}"]
    for stage, found in stages.items():
        cells = [
            sentence(found[fault], fault) if fault in found else "not tried" for fault in faults
        ]
        lines.append(f"| `{stage}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def failures(results: Result) -> list[str]:
    """What is not as it should be: a traceback, other bytes, a stage that did not stop in time."""
    found = []
    for stage, faults in results["stages"].items():
        for fault, result in faults.items():
            if "not_applicable" in result:
                continue
            if result["traceback"]:
                found.append(f"{stage}, {fault}: a traceback")
            if not result["same_bytes"]:
                found.append(f"{stage}, {fault}: other bytes afterwards")
            if fault == "SIGTERM" and result["seconds"] > STOP_SECONDS:
                found.append(f"{stage}: stopped after {result['seconds']} s")
    return found
