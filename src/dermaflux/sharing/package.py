"""`dermaflux package` and `push-to-hub`: a folder as the Hugging Face Hub shows it.

| name | from | holds |
| --- | --- | --- |
| corpus | corpus/ | shards of all splits, the data card, Croissant metadata |
| pool | synthetic/ | shards without memorised images, a card, Croissant metadata |
| lora | models/generator/ | the adapter in diffusers' names, a card |
| champion | the MLflow registry | the classifier, its out-of-distribution detector, its card |

Reads the outputs of the stages and writes the folder that it is given.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermaflux import paths
from dermaflux.core import table
from dermaflux.core.files import atomic_folder, read_json, require_empty, write_text
from dermaflux.errors import InputError
from dermaflux.generators.protocol import FACTS
from dermaflux.params import Params
from dermaflux.reporting import data_card
from dermaflux.sharing import cards, croissant

CARD = "README.md"
_CITE = "https://arxiv.org/abs/2603.16392"
_SHARD_MEGABYTES = 64.0


@dataclass(frozen=True)
class Package:
    """Something that can be pushed."""

    kind: str
    """The hub's `dataset` or `model`."""
    write: Callable[[Params, Path, str | None], None]
    """Fills a folder; the last argument is the address it will have, None where it is local."""
    refused: Callable[[Params], str | None]
    """Why it must not be public, in the words of the end of a sentence; None where it may."""


def run(params: Params, name: str, folder: Path, url: str | None = None) -> None:
    """Write the package of this name into a new folder. Raises `InputError` for an unknown name."""
    package = find(name)
    require_empty(folder, f"the package {name}")
    with atomic_folder(folder) as partial:
        package.write(params, partial, url)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"package: {name} in {folder}, {len(files)} files, {size:,.1f} MB", flush=True)


def find(name: str) -> Package:
    """A package by its name."""
    if name not in PACKAGES:
        raise InputError(f"{name!r} is not a package; choose one of {', '.join(PACKAGES)}")
    return PACKAGES[name]


def _ingest_report() -> dict[str, Any]:
    return read_json(paths.INGEST_REPORT, "`dvc repro ingest`", "sources", "licences", "images")


def _corpus(params: Params, folder: Path, url: str | None) -> None:
    croissant.require()
    report = _ingest_report()
    (folder / data_card.SHARDS).mkdir()
    for shard in table.shards(paths.CORPUS):
        table.check_shard(shard)
        _link(shard, folder / data_card.SHARDS / shard.name)
    write_text(folder / CARD, data_card.text(params, report))
    about = croissant.About(
        name="dermaflux-corpus",
        description=(
            "Images of skin lesions, labelled benign or malignant, from published datasets; each "
            "keeps the licence of its dataset. Not for clinical use."
        ),
        licences=sorted(report["licences"]),
        cite_as="; ".join(source["citation"] for _, source in sorted(report["sources"].items())),
        collection=(
            f"Read by `dermaflux ingest` (policy {report['policy']}) from "
            f"{len(report['sources'])} published datasets: "
            + ", ".join(source["title"] for _, source in sorted(report["sources"].items()))
        ),
        limitations=["README.md lists images by source, label and split, and the rules for both."],
        url=url,
    )
    croissant.write(folder, data_card.SHARDS, about, _today())


def _closed_licences(_: Params) -> str | None:
    """Licences without permission to hand images on."""
    licences = _ingest_report()["licences"]
    closed = {name: count for name, count in licences.items() if not name.startswith("CC")}
    if not closed:
        return None
    listed = ", ".join(f"{count:,} of licence {name}" for name, count in sorted(closed.items()))
    return (
        f"licences of its images forbid redistribution ({listed}); leave --public out, or "
        "set ingest.licences to [CC0, CC-BY] and run `dvc repro`"
    )


def _pool(_: Params, folder: Path, url: str | None) -> None:
    croissant.require()
    rejected = _rejected()
    (folder / data_card.SHARDS).mkdir()
    shards = table.shards(paths.SYNTHETIC)
    for shard in shards:
        table.check_shard(shard)
    columns = ["image_id", "label", "weights", "licence", "generator"]
    rows = table.metadata(paths.SYNTHETIC, columns)
    if (rows["generator"] == "released").any():
        raise InputError(
            f"{paths.SYNTHETIC} holds images that others released, under a licence of their own; "
            "name the place they are from, or package a pool that was sampled here"
        )
    unknown = rejected - set(rows["image_id"])
    if unknown:
        raise InputError(
            f"{paths.REJECTED} rejects {min(unknown)!r}, which {paths.SYNTHETIC} does not "
            "hold, so it is of another pool; run `dvc repro audit`"
        )
    if rejected:
        target = folder / data_card.SHARDS
        target.rmdir()
        kept = _rows(shards, rejected)
        table.write(kept, target, _SHARD_MEGABYTES, _schema(shards[0]))
        rows = rows[~rows["image_id"].isin(rejected)]
    else:
        for shard in shards:
            _link(shard, folder / data_card.SHARDS / shard.name)
    generator = _generator(str(rows["licence"].iloc[0]))
    counts = {str(label): int(n) for label, n in rows["label"].value_counts().items()}
    weights = sorted(str(value) for value in rows["weights"].dropna().unique())
    write_text(
        folder / CARD, cards.pool(counts, weights, generator, _audit(), removed=len(rejected))
    )
    about = croissant.About(
        name="dermaflux-pool",
        description=(
            f"{len(rows):,} synthetic images of skin lesions, labelled with the class that the "
            "generator was asked for. Not for clinical use."
        ),
        licences=sorted({str(value) for value in rows["licence"].dropna()}),
        cite_as=_CITE,
        collection=f"Sampled by `dermaflux synthesize` from {generator.name}.",
        limitations=["A label is what was asked for, not a physician's diagnosis."],
        url=url,
    )
    croissant.write(folder, data_card.SHARDS, about, _today())


def _rejected() -> set[str]:
    """Ids of memorised images, which are known by the audit alone."""
    if not paths.REJECTED.is_file():
        raise InputError(
            f"there is no {paths.REJECTED}, so images that copy a patient's photograph are not "
            "known; run `dvc repro audit`"
        )
    return set(read_json(paths.REJECTED, "`dvc repro audit`", "rejected")["rejected"])


def _audit() -> dict[str, Any]:
    """The audit's report; empty where it has not run."""
    return read_json(paths.AUDIT_REPORT, "`dvc repro`") if paths.AUDIT_REPORT.is_file() else {}


def _rows(shards: list[Path], rejected: set[str]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for shard in shards:
        for batch in pq.ParquetFile(shard).iter_batches(100):
            yield from (row for row in batch.to_pylist() if row["image_id"] not in rejected)


def _schema(shard: Path) -> Any:
    import pyarrow.parquet as pq

    schema = pq.read_schema(shard)
    kept = {key: value for key, value in (schema.metadata or {}).items() if key == b"huggingface"}
    return schema.with_metadata(kept)


def _lora(params: Params, folder: Path, url: str | None) -> None:
    from dermaflux.generators.flux_lora.model import lora

    if params.generator != "flux_lora":
        raise InputError(
            f"generator is {params.generator!r}, which trains no LoRA; set generator to flux_lora"
        )
    weights = paths.GENERATOR / lora.WEIGHTS
    if not weights.is_file():
        raise InputError(f"{paths.GENERATOR} holds no {lora.WEIGHTS}; run `dvc repro finetune`")
    for path in (weights, paths.GENERATOR / FACTS):
        _link(path, folder / path.name)
    write_text(folder / CARD, cards.adapter(_generator(), _audit(), lora.WEIGHTS))


def _generator(licence: str = "") -> cards.Generator:
    """The generator of models/, as the cards describe it."""
    from dermaflux.generators.flux_lora.model import pipeline

    facts = read_json(paths.GENERATOR / FACTS, "`dvc repro finetune`")
    sources = {name: source["licence"] for name, source in _ingest_report()["sources"].items()}
    name = str(facts.get("generator", "flux_lora"))
    backbone, revision = name, None
    if "backbone" in facts:
        origin = pipeline.reference(paths.BACKBONE)
        backbone, revision, licence = origin.source, origin.revision, licence or origin.licence
    return cards.Generator(name, backbone, revision, licence or "unknown", facts, sources)


def _champion(params: Params, folder: Path, url: str | None) -> None:
    from dermaflux.registry import registry
    from dermaflux.tracking import runs

    champion = registry.require_champion(runs.connect(), params.promote.model_name)
    stored = champion.folder()
    for path in sorted(stored.iterdir()):
        if path.suffix in (".json", ".safetensors"):
            _link(path, folder / path.name)
    card = stored.parents[1] / registry.CARD
    write_text(folder / CARD, card.read_text(encoding="utf-8"))


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the disks differ."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def _never(_: Params) -> None:
    return None


PACKAGES: Mapping[str, Package] = {
    "corpus": Package("dataset", _corpus, _closed_licences),
    "pool": Package("dataset", _pool, _never),
    "lora": Package("model", _lora, _never),
    "champion": Package("model", _champion, _never),
}
