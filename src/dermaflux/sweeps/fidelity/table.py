"""A published table of generators: what the paper states beside this grid's pools. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dermaflux.sweeps.fidelity.pool import FIGURES, REFERENCES, AuditedPool
from dermaflux.sweeps.grid import Grid

TITLES = {
    "fid": "FID",
    "inception_score": "inception score",
    "precision": "precision",
    "recall": "recall",
}


def rows(grid: Grid, pools: Sequence[AuditedPool]) -> list[dict[str, Any]]:
    """One row per row of `grid.fidelity`, in its order.

    `pool` is None, and `state` says why, where the row's run is not finished.
    """
    finished = {each.run.block: each for each in pools}
    return [
        {
            "title": row.title,
            "data": row.data,
            "published": row.published,
            "pool": finished.get(row.run) if row.run else None,
            "state": "finished" if row.run in finished else f"not run{row.why and f': {row.why}'}",
        }
        for row in grid.fidelity
    ]


def shown(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Figure -> its title, of those that the paper states."""
    return {
        name: title
        for name, title in TITLES.items()
        if any(row["published"].get(name) is not None for row in rows)
    }


def line(row: dict[str, Any]) -> str:
    """A row as one printed line."""
    stated = ", ".join(
        f"{TITLES[name]} {value:.3f}"
        for name, value in row["published"].items()
        if value is not None
    )
    pool: AuditedPool | None = row["pool"]
    ours = row["state"]
    if pool is not None:
        against = [
            ", ".join(
                f"{TITLES[name]} {each.value:.3f}" for name, each in pool.figures[split].items()
            )
            + f" against {pool.reference_images[split]:,} {split} images"
            for split in REFERENCES
            if pool.figures.get(split)
        ]
        share = pool.memorised_share
        ours = "; ".join(
            [
                *(against or ["no figure of fidelity"]),
                f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%}) of {pool.images:,} images"
                " memorised",
            ]
        )
        ours += f" (features: {pool.params.audit.features})"
    return f"{row['data']}, {row['title']}: published {stated or 'nothing'}; ours {ours}"


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row as plain values: an interval takes three columns."""
    plain = {name: row[name] for name in ("data", "title", "state")}
    plain |= {f"published_{name}": value for name, value in row["published"].items()}
    pool: AuditedPool | None = row["pool"]
    if pool is None:
        return plain
    share = pool.memorised_share
    plain |= {
        "generator": pool.params.generator,
        "features": pool.params.audit.features,
        "images": pool.images,
        "memorised": pool.memorised,
        "memorised_share": share.value,
        "memorised_share_low": share.low,
        "memorised_share_high": share.high,
    }
    for split in REFERENCES:
        plain[f"images_{split}"] = pool.reference_images.get(split)
        for name in FIGURES:
            if (found := pool.figures.get(split, {}).get(name)) is not None:
                at = f"{name}_{split}"
                plain |= {at: found.value, f"{at}_low": found.low, f"{at}_high": found.high}
    return plain
