"""The stated costs of a run against closed forms, and the docs against the benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "flux_memory.json"


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import flux_memory

    return flux_memory


def test_the_docs_hold_what_the_benchmark_calculates(costs: Any) -> None:
    results = json.loads(RESULTS.read_text())
    assert results["run"] == {padding: costs.run(padding) for padding in ("trim", "pad512")}
    page = (ROOT / "docs" / "generator.md").read_text()
    assert costs.written(page, costs.tables(results)) == page
    memory = {card["gib"] for card in results["cards"].values()}
    assert len(memory) == 4
    for row in results["rows"]:
        room = 0.95 * results["cards"][row["card"]]["gib"]
        for padding in ("trim", "pad512"):
            assert row[padding] is None or row[padding]["peak_gib"] <= room + 0.05
    with pytest.raises(SystemExit, match="0 blocks"):
        costs.written("no comments", costs.tables(results))


def test_the_page_on_scale_holds_what_was_measured_and_marks_what_was_not(costs: Any) -> None:
    import scale

    page = (ROOT / "docs" / "scale.md").read_text()
    assert costs.written(page, scale.tables(), "scale") == page
    rows = {
        cells[0]: cells[1:]
        for line in page.splitlines()
        if line.startswith("| ") and len(cells := line.strip("| ").split(" | ")) == 5
    }
    measured = json.loads((RESULTS.parent / "ingest-508344.json").read_text())["ingest"]
    small, _, whole, large = rows["`ingest` of tiles"]
    assert whole == f"{measured['seconds'] / 60:.0f} min"
    assert large == f"~ {measured['seconds'] / 3600 * 10_000_000 / 508_344:.1f} h"
    assert small.startswith("~ ")
    assert all(cell.startswith("~ ") for cell in rows["`pad512`, 64 GPUs"])
    # 64 GPUs take a sixty-fourth of what one takes, and 10 million images as much more as they are.
    assert float(rows["`pad512`, 1 GPU"][3][2:-2]) == pytest.approx(37.5 * 10e6 / 508_344, rel=0.01)


def test_arithmetic_is_that_counted_by_hand(costs: Any) -> None:
    width, rank, blocks = 3072, 64, 57
    images = {64: 400_901, 256: 22_140, 1024: 85_303}
    total = 0.0
    for image, count in images.items():
        tokens = image + 512
        # Forward and gradient by input: twice two operations per weight a token meets, twelve
        # squares of the width in a block of either kind; scores and values three times; the
        # adapters' factors of query, key, value and, in double blocks, output three times.
        each = 2 * 2 * 12 * width**2 * blocks * tokens + 3 * 4 * width * blocks * tokens**2
        each += 3 * 2 * 2 * width * rank * (4 * 19 + 3 * 38) * tokens
        total += 5 * count * each
    padded = costs.run("pad512")
    assert padded["exaflop"] == pytest.approx(total / 1e18, rel=0.01)
    assert padded["hours_text_cached"] == pytest.approx(total / 395e12 / 3600, rel=0.01)
    assert padded["micro_batch"] == {"128": 21, "256": 16, "512": 8}
    assert padded["text_cache_terabytes"] == pytest.approx(508_344 * 512 * 4096 * 2e-12, rel=0.01)


def test_encoding_a_prompt_is_two_operations_per_weight(costs: Any) -> None:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_layers=2, num_heads=64,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    with torch.device("meta"):
        model = T5EncoderModel(config)
    weights = 12 * sum(p.numel() for name, p in model.named_parameters() if "shared" not in name)
    # Attention's scores and values are the rest.
    assert costs.text_encoding(16) / 16 == pytest.approx(2 * weights, rel=0.005)
    assert costs.text_encoding(512) / 512 == pytest.approx(
        2 * weights + 4 * 24 * 512 * 4096, rel=0.001
    )
