"""The benchmark of planted copies at small size: its bars hold on drawn and on real lesions."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermaflux.params import Audit

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
REAL = Path(__file__).parents[3] / "shared/real/data"
TRAINING, OTHERS, COPIES = 150, 40, 12


@pytest.mark.parametrize("corpus", ["phantom", "real"])
def test_copies_are_caught_and_honest_images_are_not(tmp_path, monkeypatch, corpus) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import planted_copies

    if corpus == "real" and not REAL.is_dir():
        pytest.skip("needs ISIC images beside the repository")
    kinds = {kind: planted_copies.CHANGES[kind] for kind in planted_copies.BARS}
    monkeypatch.setattr(planted_copies, "CHANGES", kinds)
    groups = (
        planted_copies.phantom(TRAINING, OTHERS)
        if corpus == "phantom"
        else planted_copies.real(REAL, TRAINING, OTHERS)
    )
    counts, made = planted_copies.write(tmp_path, groups, COPIES)
    settings = Audit(duplicate_correlation=0.55 if corpus == "phantom" else 0.5)
    (_, rules), points, queries = planted_copies.judged(tmp_path, settings)
    *copies, honest, held_out = planted_copies.table_of(rules, made, counts["honest"])
    assert [row["images"] for row in copies] == list(kinds)
    assert all(row["rejected"] == row["original_named"] == COPIES for row in copies)
    assert (honest["rejected"], held_out["rejected"]) == (0, 0)
    none, _, some = planted_copies.mixtures(rules, made, OTHERS, points, queries)
    assert some["copies"] == 10
    assert some["copying_test"]["value"] < none["copying_test"]["value"]
    assert some["authentic"]["value"] < none["authentic"]["value"]
