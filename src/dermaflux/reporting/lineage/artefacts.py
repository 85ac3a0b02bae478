"""Hashes of the stages' outputs, the MLflow search that finds each run, and its place on the page.

Reads the outputs' hashes; writes nothing. No run id is on the page, so it stays the same for the
same inputs: a number leads to the row of its artefact, whose search leads to the run. With
`report.runs` it leads to the run itself; see `ledger`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dermaflux import paths
from dermaflux.params import Params
from dermaflux.reporting.lineage.ledger import Work
from dermaflux.tracking import runs


@dataclass(frozen=True)
class Artefact:
    """An output of a stage."""

    path: str
    experiment: str
    """Of MLflow."""
    hash: str
    anchor: str
    """Id of its row on the page."""

    @property
    def search(self) -> str:
        """What finds its run in MLflow."""
        return f"tags.`output.{self.path}` = '{self.hash}'"


def found(params: Params) -> list[Artefact]:
    """Of every output that exists, in the order in which data flows."""
    cells = [
        paths.cell(architecture, seed)
        for architecture in params.architectures()
        for seed in params.train.seeds
    ]
    experiments = {
        paths.CORPUS: "corpus",
        paths.CAPTIONS: "corpus",
        paths.BACKBONE: "generator",
        paths.GENERATOR: "generator",
        paths.SYNTHETIC: "generator",
        paths.AUDIT_REPORT: "generator",
        **{paths.CLASSIFIERS / cell: "training" for cell in cells},
        **{paths.EVALUATIONS / f"{cell}.json": "classifier" for cell in cells},
    }
    return [
        Artefact(path.as_posix(), experiment, runs.dvc_hash(path), _anchor(path.as_posix()))
        for path, experiment in experiments.items()
        if path.exists()
    ]


def _anchor(path: str) -> str:
    return "run-" + path.replace("/", "-").replace(".", "-")


@dataclass(frozen=True)
class Links:
    """Where a number of the page leads to."""

    anchors: Mapping[str, str]
    """Path of an artefact -> id of its row."""
    first_seed: int
    work: Mapping[str, Work]
    """Path -> its runs, where `report.runs` asked for them."""

    def to(self, path: str, child: str = "") -> str:
        """Address for a number from the artefact `path`; empty where there is none.

        `child` is the arm, where the artefact has a run for each.
        """
        done = self.work.get(path)
        if done is not None and (address := done.addresses.get(child) or done.address):
            return address
        return f"#{self.anchors[path]}" if path in self.anchors else ""

    def arm(self, architecture: str, arm: str, seed: int | None = None) -> str:
        """Address for a test metric of an arm; the mean over seeds leads to the first seed's."""
        cell = paths.cell(architecture, self.first_seed if seed is None else seed)
        return self.to((paths.EVALUATIONS / f"{cell}.json").as_posix(), arm)


def links(params: Params, artefacts: list[Artefact], work: Mapping[str, Work]) -> Links:
    """The links of a page with these artefacts."""
    anchors = {artefact.path: artefact.anchor for artefact in artefacts}
    return Links(anchors, params.train.seeds[0], work)
