"""How many images were read, quarantined and kept.

Reads reports/ingest.json, reports/quarantine.csv and the labels of synthetic/; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import read_csv, read_json, reading
from dermaflux.core.vocabulary import CLASSES

if TYPE_CHECKING:
    import pandas as pd

_FLOW = ("in", "quarantined", "kept")


@dataclass(frozen=True)
class Rule:
    """A quarantine rule, the number of records it quarantined, and the reason of one of them."""

    name: str
    count: int
    example: str


@dataclass(frozen=True)
class Dataset:
    """A dataset of the paper's Table 1, and what this corpus has of it."""

    title: str
    scale: int
    """The paper's bucket in pixels."""
    paper: dict[str, int]
    """`training` and `test` images that the paper can use, as `sources` declares them."""
    here: dict[str, int] | None
    """`in`, `quarantined`, `training` (validation included) and `test`; None where it is absent."""


@dataclass(frozen=True)
class Corpus:
    """Counts of the stage `ingest`."""

    total: dict[str, int]
    """`in`, `quarantined` and `kept`; the first is the sum of the others."""
    sources: pd.DataFrame
    """Index source; `in`, `quarantined`, `kept`, then `<split> <label>` for each pair."""
    scales: pd.DataFrame
    """Index scale in pixels, or `none` for records without a decoded image; as `total`."""
    rules: list[Rule]
    """Most frequent first."""
    unread: dict[str, int]
    """Images of datasets that no adapter reads."""
    policy: str
    """The policy that built the corpus."""
    policies: pd.DataFrame
    """Index scale in pixels; training images by `clean`, by `as_published` and in the `paper`."""
    test_drawn: str
    """How the test split was drawn, in a sentence; empty where it is a published one."""
    shortcuts: dict[str, float]
    """`source_auc` and `scale_auc`: what these alone score on the training split."""
    splits: dict[str, int]
    """Split -> benign and malignant images kept in it."""
    residue: dict[str, int]
    """Scale -> published images that the paper's count lacks without explanation."""
    table1: dict[str, Dataset]
    """In the paper's order; empty where `ingest` was run by a version that did not write it."""


def corpus() -> Corpus:
    """Read what `ingest` counted; raise `InputError` when it has not run."""
    report = read_json(paths.INGEST_REPORT, "`dvc repro ingest`")
    with reading(paths.INGEST_REPORT, "`dvc repro ingest`"):
        return _corpus(report)


def _corpus(report: dict[str, Any]) -> Corpus:
    import pandas as pd

    sources = {
        source: {name: figures[name] for name in _FLOW} | _kept(report["kept"], source)
        for source, figures in report["sources"].items()
    }
    by_source = pd.DataFrame.from_dict(sources, orient="index")
    return Corpus(
        total={name: report["images"][name] for name in _FLOW},
        sources=by_source,
        scales=pd.DataFrame.from_dict(report["scales"], orient="index")[list(_FLOW)],
        rules=_rules(report["quarantine"]["rule"]),
        unread={name: dataset["images"] for name, dataset in report["unread"].items()},
        policy=report["policy"],
        policies=_policies(report),
        test_drawn=(report.get("test_drawn") or {}).get("sentence", ""),
        shortcuts={name: float(value) for name, value in report.get("shortcuts", {}).items()},
        splits={
            split: int(sum(by_source[f"{split} {label}"].sum() for label in CLASSES))
            for split in table.SPLITS
        },
        residue=report["paper"]["residue"],
        table1=_table1(report),
    )


def _table1(report: dict[str, Any]) -> dict[str, Dataset]:
    rows = {}
    for name, stated in report["paper"].get("datasets", {}).items():
        here = None
        if name in report["sources"]:
            kept = _kept(report["kept"], name)
            of = {
                split: sum(kept[f"{split} {label}"] for label in CLASSES) for split in table.SPLITS
            }
            here = {each: report["sources"][name][each] for each in ("in", "quarantined")} | {
                "training": of["train"] + of["validation"],
                "test": of["test"],
            }
        paper = {split: int(stated[split]) for split in ("training", "test")}
        rows[name] = Dataset(str(stated["title"]), int(stated["scale"]), paper, here)
    return rows


def _policies(report: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    columns = {name: counts["training"] for name, counts in report["policies"].items()}
    columns["paper"] = report["paper"]["training"]
    frame = pd.DataFrame(columns)[["clean", "as_published", "paper"]].fillna(0).astype(int)
    return frame.loc[sorted(frame.index, key=int)]


def _kept(kept: dict[str, Any], source: str) -> dict[str, int]:
    return {
        f"{split} {label}": sum(kept.get(split, {}).get(source, {}).get(label, {}).values())
        for split in table.SPLITS
        for label in CLASSES
    }


def _rules(counts: dict[str, int]) -> list[Rule]:
    rows = read_csv(
        paths.QUARANTINE,
        "`dvc repro ingest`",
        texts=("rule", "reason"),
        keep_default_na=False,
    )
    examples = rows.groupby("rule")["reason"].first()
    order = sorted(counts, key=lambda name: (-counts[name], name))
    return [Rule(name, counts[name], str(examples.get(name, ""))) for name in order]


def synthetic() -> pd.Series[int]:
    """Synthetic images per label."""
    return table.metadata(paths.SYNTHETIC, ["label"])["label"].value_counts().sort_index()


def chosen() -> str:
    """How the images of the pool were chosen, in a sentence; empty where all that were sampled are.

    Raises `InputError` for a pool whose list of candidates is missing.
    """
    if "uncertainty" not in table.columns(paths.SYNTHETIC):
        return ""
    kept = table.metadata(paths.SYNTHETIC, ["uncertainty"])["uncertainty"]
    sampled = table.metadata(table.candidates(paths.SYNTHETIC), ["uncertainty"])["uncertainty"]
    return (
        f"The synthetic images are chosen: of {len(sampled):,} sampled ones, the {len(kept):,} of "
        "whose class a classifier trained on real images alone is least certain (mean uncertainty "
        f"{kept.mean():.3f}, of all {sampled.mean():.3f}; 0 is sure, 1 undecided)."
    )
