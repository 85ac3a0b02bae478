"""What a grid file says of a paper: figures, and the rows of its tables. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dermaflux.sweeps.pools import Overrides, Part


class Published(Part):
    """A figure that a paper states, in [0, 1]; with `over`, a difference of two such figures."""

    at: Overrides
    """Parameters of the run it was measured on."""
    over: Overrides = {}
    """For a difference: parameters of the run that is subtracted."""
    architecture: str
    arm: str = ""
    """Empty: the mixture, or the real images of a run without synthetic ones."""
    figure: str
    value: float


Labels = Literal["diagnosis", "malignancy"]
Stated = dict[Literal["accuracy", "f1"], float | None]
"""What a paper states of one classifier, in [0, 1]; None where it gives no number."""


class Row(Part):
    """A row of a published table, and the classifier of this grid that stands beside it."""

    title: str
    run: str = ""
    """Name of a block of `runs`; empty for a figure that the paper quotes from another one."""
    cell: str = Field(default="", pattern=r"^$|^[^/]+/[^/]+$")
    """`<architecture>/<arm>` of that block's experiments."""
    diagnosis: Stated = {}
    malignancy: Stated = {}

    def stated(self, labels: Labels) -> Stated:
        """The published figures for one kind of labels; empty when there are none."""
        return self.diagnosis if labels == "diagnosis" else self.malignancy


Figure = Literal["fid", "inception_score", "precision", "recall"]
"""Of a pool of images against real ones."""


class FidelityRow(Part):
    """A row of a published table of generators, and the pool of this grid that stands beside it."""

    title: str
    data: str
    """The data set, as the paper names it."""
    run: str = ""
    """Name of a block of `runs`."""
    why: str = ""
    """Why there is none."""
    published: dict[Figure, float | None] = {}
    """FID is from 0, an inception score from 1, the others in [0, 1]; empty for a row of ours."""
