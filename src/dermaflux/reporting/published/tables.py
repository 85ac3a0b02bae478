"""Published tables and figures row by row, each value beside ours where it was run.

Reads `grids/` and `reports/grids/`, where `dermaflux results` puts what a grid's experiments gave,
and takes from this run what is one of a table's cells; writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dermaflux import paths
from dermaflux.core.files import read_csv, read_json, reading
from dermaflux.params import Params
from dermaflux.reporting.published import protocols
from dermaflux.statistics.evaluations import Estimate
from dermaflux.statistics.seed_means import Means

FIGURES = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "f1": "F1",
    "mauc": "Macro AUC",
    "macro_f1": "Macro F1",
    "fid": "FID",
    "inception_score": "Inception score",
    "precision": "Precision",
    "recall": "Recall",
}
NOT_RUN = "not run"


@dataclass(frozen=True)
class Cell:
    """One figure: what the paper states and what was found here."""

    published: float | None
    ours: Estimate | None = None


@dataclass(frozen=True)
class Row:
    """A row of a published table."""

    labels: tuple[str, ...]
    cells: dict[str, Cell]
    """Figure of `FIGURES` -> both values; figures that the paper does not give are absent."""
    state: str
    """`this run`, `grid`, or why there is nothing of ours: `not run`, with a reason if known."""
    difference: bool = False
    """Whether the figures are differences between two runs."""


@dataclass(frozen=True)
class Table:
    """A published table or figure."""

    grid: str
    """Name of its protocol: `dermaflux queue NAME` runs it."""
    description: str
    source: str
    heads: tuple[str, ...]
    """Titles of the rows' labels."""
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, str]:
        """Figure -> title, of those that any row states."""
        return {
            name: title
            for name, title in FIGURES.items()
            if any(name in row.cells for row in self.rows)
        }

    @property
    def run(self) -> int:
        """Rows with a figure of ours."""
        return sum(not row.state.startswith(NOT_RUN) for row in self.rows)


def papers(
    params: Params, means: Means, fidelity: Mapping[str, Any], level: float
) -> dict[str, list[Table]]:
    """Paper -> its tables. `fidelity` is that of reports/audit.json, or empty.

    A paper without a protocol in `grids/` is left out. Raises `InputError` for a damaged file.
    """
    raw = params.model_dump(by_alias=True)
    found: dict[str, list[Table]] = {}
    for paper, names in protocols.PAPERS.items():
        for name in names:
            protocol = protocols.read(name)
            if protocol is None:
                continue
            with reading(protocols.FOLDER / f"{name}.yaml", "`git checkout grids`"):
                found.setdefault(paper, []).append(
                    _table(name, protocol, _Own(raw, means, fidelity, level))
                )
    return found


@dataclass(frozen=True)
class _Own:
    """What this run found, and the parameters it had."""

    parameters: Mapping[str, Any]
    means: Means
    fidelity: Mapping[str, Any]
    level: float

    def metric(self, architecture: str, arm: str, figure: str) -> Estimate | None:
        mean = self.means.get((architecture, arm), {}).get(figure)
        return None if mean is None else mean.estimate(self.level)


def _table(name: str, protocol: Mapping[str, Any], own: _Own) -> Table:
    heads: tuple[str, ...]
    if protocol.get("fidelity"):
        heads, rows = ("Data", "Generator"), _fidelity(name, protocol, own)
    elif protocol.get("table"):
        heads, rows = ("Classifier", "Labels"), _classifiers(name, protocol, own)
    else:
        heads, rows = ("Run", "Classifier", "Arm"), _stated(name, protocol, own)
    return Table(
        name, protocol["description"], protocol["source"], heads, rows, protocol.get("notes", [])
    )


def _stated(name: str, protocol: Mapping[str, Any], own: _Own) -> list[Row]:
    """Figures of single runs and differences of two; figures of the same run share a row."""
    results = _results(name)
    blocks = [
        block for block in protocols.blocks(protocol) if protocols.runs_it(own.parameters, block)
    ]
    rows: dict[tuple[str, ...], Row] = {}
    for published in protocol.get("published", []):
        at, over = published["at"], published.get("over", {})
        arm = published.get("arm") or _arm(at)
        labels = (_words(at, over), published["architecture"], arm.replace("_", " "))
        figure, ours, state = published["figure"], None, NOT_RUN
        if blocks and not over and protocols.has(own.parameters, at):
            ours, state = own.metric(published["architecture"], arm, figure), "this run"
        if ours is None:
            found = next((row for row in results if _same(row, published)), None)
            ours, state = (None, NOT_RUN) if found is None else (_estimate(found), "grid")
        row = rows.setdefault(labels, Row(labels, {}, state, bool(over)))
        row.cells[figure] = Cell(published["value"], ours)
    return list(rows.values())


def _arm(at: Mapping[str, Any]) -> str:
    alone = at.get("ratio") == 0 or at.get("n_synthetic") == 0
    return "real" if alone else "mixture"


def _words(at: Mapping[str, Any], over: Mapping[str, Any]) -> str:
    """`n_real 2,500, ratio 1 − n_real 2,500, ratio 0`."""
    sides = [
        ", ".join(
            f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}"
            for key, value in side.items()
        )
        for side in (at, over)
        if side
    ]
    return " − ".join(sides)


def _same(row: Mapping[str, Any], published: Mapping[str, Any]) -> bool:
    keys = ("at", "over", "architecture", "figure")
    return all(row.get(key) == published.get(key, {}) for key in keys) and row.get(
        "arm", ""
    ) == published.get("arm", "")


def _results(name: str) -> list[dict[str, Any]]:
    """What `dermaflux results` found beside the published figures; empty before it ran."""
    path = paths.GRIDS / name / "published.json"
    if not path.is_file():
        return []
    content = read_json(path, f"`dermaflux results {name}`", "rows")
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def _estimate(row: Mapping[str, Any]) -> Estimate:
    return Estimate(*(float("nan" if row[key] is None else row[key]) for key in _LIMITS))


_LIMITS = ("value", "low", "high")


def _classifiers(name: str, protocol: Mapping[str, Any], own: _Own) -> list[Row]:
    """Rows of a table of classifiers: accuracy and F1 for one kind of labels each."""
    files = _lines(name, ("title", "labels", "state"))
    blocks = {block["name"]: block for block in protocols.blocks(protocol)}
    rows = []
    for entry in protocol["table"]:
        architecture, _, arm = entry.get("cell", "").partition("/")
        for labels in ("diagnosis", "malignancy"):
            stated = entry.get(labels) or {}
            if not stated:
                continue
            line = files.get((entry["title"], labels), {})
            block = blocks.get(entry.get("run", ""))
            here = (
                block is not None
                and own.parameters["train"]["labels"] == labels
                and protocols.runs_it(own.parameters, block)
                and (architecture, arm) in own.means
            )
            # The paper does not say which mean of F1 it gives; ours is that of the classes.
            names = {"accuracy": "accuracy", "f1": "macro_f1"}
            cells = {
                figure: Cell(
                    value,
                    own.metric(architecture, arm, names[figure])
                    if here
                    else _of_line(line, names[figure]),
                )
                for figure, value in stated.items()
            }
            rows.append(Row((entry["title"], labels), cells, _state(cells, here, line, entry)))
    return rows


def _state(
    cells: Mapping[str, Cell], here: bool, line: Mapping[str, Any], entry: Mapping[str, Any]
) -> str:
    if any(cell.ours is not None for cell in cells.values()):
        return "this run" if here else "grid"
    if not entry.get("run"):
        return f"{NOT_RUN}: {entry.get('why') or 'the paper quotes it from another one'}"
    said = str(line.get("state", ""))
    return said if said.startswith(NOT_RUN) else NOT_RUN


def _fidelity(name: str, protocol: Mapping[str, Any], own: _Own) -> list[Row]:
    """Rows of a table of generators; ours against the training images, as released code compares.

    On other features than Inception's a distance is no FID, so such a pool is not set beside one.
    """
    files = _lines(name, ("title", "data", "state"))
    blocks = {block["name"]: block for block in protocols.blocks(protocol)}
    inception = own.parameters["audit"]["features"] == "inception"
    rows = []
    for entry in protocol["fidelity"]:
        line = files.get((entry["data"], entry["title"]), {})
        block = blocks.get(entry.get("run", ""))
        here = block is not None and inception and protocols.runs_it(own.parameters, block)
        against = own.fidelity.get("train", {}) if here else {}
        stated: Mapping[str, float | None] = entry.get("published") or {}
        cells = {
            figure: Cell(
                value,
                _of_audit(against, figure) if here else _of_line(line, f"{figure}_train"),
            )
            for figure, value in stated.items()
        }
        if stated:
            labels = (entry["data"], entry["title"])
            rows.append(Row(labels, cells, _state(cells, here, line, entry)))
    return rows


def _of_audit(against: Mapping[str, Any], figure: str) -> Estimate | None:
    found = against.get(figure) or {}
    return None if found.get("value") is None else _estimate(found)


def _lines(name: str, keys: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """The lines of a grid's published.csv by their two labels; empty before `results` ran."""
    path = paths.GRIDS / name / "published.csv"
    if not path.is_file():
        return {}
    rows = read_csv(path, f"`dermaflux results {name}`", texts=keys)
    first, second = ("title", "labels") if "labels" in keys else ("data", "title")
    return {(row[first], row[second]): row for row in rows.to_dict("records")}


def _of_line(line: Mapping[str, Any], name: str) -> Estimate | None:
    value = line.get(name)
    if value is None or value != value:
        return None
    return Estimate(float(value), *(float(line[f"{name}_{end}"]) for end in ("low", "high")))
