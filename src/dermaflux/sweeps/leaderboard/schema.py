"""What `leaderboard.json` holds: written by `dermaflux results`, and submitted to it.

`docs/leaderboard.schema.json` is made from these classes, and docs/leaderboard.md explains them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from dermaflux.errors import quoted

VERSION: Literal["dermaflux-leaderboard/1"] = "dermaflux-leaderboard/1"
_MOST = 1_000


def _field(unit: str, description: str, **limits: Any) -> Any:
    return Field(description=description, json_schema_extra={"unit": unit}, **limits)


Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Text = Annotated[str, Field(max_length=500)]


class Part(BaseModel):
    """An object that refuses fields which it does not know."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=False,
    )


class Interval(Part):
    """A value with the limits of its interval."""

    value: float = _field("as the object", "Estimate.")
    low: float | None = _field("as the object", "Lower limit; null where the interval is open.")
    high: float | None = _field("as the object", "Upper limit; null where the interval is open.")

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        below = self.low is not None and self.low > self.value
        if below or (self.high is not None and self.high < self.value):
            raise ValueError(
                f"the value {self.value:g} lies outside its own interval, {self.low} to {self.high}"
            )
        return self


class Rate(Interval):
    """Further real images that one synthetic image was worth."""

    bound: Literal["", "at least", "at most"] = _field(
        "none", "Not empty where the value lies beyond the sizes measured; it is the nearest then."
    )


class Gain(Interval):
    """AUC of the mixture minus AUC of the real images alone: same seeds, same test images."""

    p: float | None = _field(
        "probability", "Two-sided, corrected by Holm's method for its own page.", ge=0, le=1
    )

    @model_validator(mode="after")
    def _possible(self) -> Gain:
        if abs(self.value) > 1:
            raise ValueError(f"a gain in AUC of {self.value:g} is not in -1 to 1")
        return self


class Ceiling(Interval):
    """What as many further real images gain, in AUC."""


class Kid(Interval):
    """Kernel inception distance to the training images, mean over classes; lower is closer."""

    features: Text = _field("none", "Feature space, the parameter audit.features.")


class Rank(Part):
    """Ranks that are possible; equal where the rank is known."""

    best: int = _field("rank", "1 is the highest.", ge=1, le=_MOST)
    worst: int = _field("rank", "At least `best`.", ge=1, le=_MOST)


class Result(Part):
    """What one architecture says of a pool."""

    architecture: Name = _field("none", "Name in train.models.")
    seeds: int = _field("seeds", "Trainings of every arm.", ge=1, le=1_000)
    rate: Rate | None = _field(
        "real images per synthetic image", "Exchange rate; null where there is no learning curve."
    )
    why_no_rate: Text = _field("none", "Why `rate` is null, or empty.")
    gain: Gain = _field("AUC", "What the mixture gained over the real images alone.")
    detectable: float | None = _field(
        "AUC", "Smallest true gain that such a run sees with a probability of 80 %.", ge=0
    )
    rank: Rank | None = _field("rank", "Among the rows of this page; ignored in a submission.")


class Entry(Part):
    """A pool of synthetic images."""

    pool: Name = _field("none", "Name of the pool, unique on the page.")
    state: Literal["measured", "submitted", "not run"] = _field(
        "none", "Run by this page's author, taken from a submission, or absent for `reason`."
    )
    reason: Text = _field("none", "Why it is not run, or the file it was submitted in.")
    generator: Text = _field("none", "Parameter generator; `released`: images that others made.")
    licence: Text = _field("none", "Of the images.")
    url: str = _field(
        "none", "Where they are described.", pattern=r'^(https?://[^\s"<>]+)?$', max_length=500
    )
    pool_hash: Text = _field("none", "DVC's hash of the images with their manifest.")
    images: Count = _field("images", "Synthetic images in the pool.")
    memorised: Count = _field("images", "Of them, rejected by the audit as copies; not trained on.")
    kid: Kid | None = _field(
        "none (KID has no unit)", "Fidelity, with a 95 % interval over images."
    )
    images_per_second: float | None = _field(
        "images/s", "Median over batches while sampling; null for released images.", gt=0
    )
    device: Text = _field("none", "What sampled at that rate.")
    comparisons: int = _field(
        "comparisons",
        "Its intervals of rate and gain are simultaneous for so many.",
        ge=1,
        le=_MOST,
    )
    results: list[Result] = Field(
        description="One for each architecture; empty where not run.", max_length=100
    )

    @model_validator(mode="after")
    def _whole(self) -> Entry:
        if self.memorised > self.images:
            raise ValueError(f"{self.memorised:,} memorised images of {self.images:,}")
        if bool(self.results) == (self.state == "not run"):
            raise ValueError(f"it is {self.state!r} and has {len(self.results)} results")
        names = [result.architecture for result in self.results]
        if len(set(names)) < len(names):
            raise ValueError("an architecture occurs twice")
        return self


class Size(Part):
    """A number of real images alone, on the learning curve that all pools share."""

    architecture: Name = _field("none", "Name in train.models.")
    images: Count = _field("images", "Real training images.")
    auc: float = _field("AUC", "Mean over seeds, on the test split.", ge=0, le=1)


class Test(Part):
    """The test split."""

    hash: Hash = _field("SHA-256", "Of its sorted lines `image_id label`.")
    images: Count = _field("images", "All test images.")
    malignant: Count = _field("images", "Malignant ones.")


class Protocol(Part):
    """Everything that decides a classifier but its synthetic images."""

    hash: Hash = _field("SHA-256", "Of `parameters` as JSON with sorted keys.")
    parameters: dict[str, JsonValue] = _field(
        "as in params.yaml", "Parameter -> value.", max_length=_MOST
    )

    @classmethod
    def of(cls, parameters: dict[str, JsonValue]) -> Protocol:
        """The protocol of some parameters."""
        return cls(hash=digest(parameters), parameters=parameters)

    @model_validator(mode="after")
    def _hashed(self) -> Protocol:
        if self.hash != digest(self.parameters):
            raise ValueError("the hash is not that of the parameters beside it")
        return self


def digest(parameters: dict[str, JsonValue]) -> str:
    """SHA-256 of parameters, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


class Leaderboard(Part):
    """The file."""

    schema_: Literal["dermaflux-leaderboard/1"] = Field(
        alias="schema", description="Name and version of this format."
    )
    grid: Name = _field("none", "Grid that was run.")
    dermaflux: Text = _field("none", "Version of the program.")
    commit: Text = _field("none", "Commit from which all experiments started.")
    protocol: Protocol = Field(description="What a submission must share.")
    test: Test = Field(description="What a submission must share.")
    real: Count = _field("images", "Real training images beside the synthetic ones.")
    synthetic: int = _field("images", "Synthetic training images.", ge=1, le=1_000_000_000)
    sizes: list[Size] = Field(description="The shared learning curve.", max_length=_MOST)
    ceilings: dict[Name, Ceiling] = _field(
        "AUC", "Architecture -> what as many further real images gain.", max_length=100
    )
    confidence: float = _field("probability", "Of the intervals of rate and gain.", gt=0, lt=1)
    joint_confidence: float = _field(
        "probability", "With which all ranks hold at once, at least.", ge=0, le=1
    )
    entries: list[Entry] = Field(description="Pools, best first.", max_length=_MOST)

    @model_validator(mode="after")
    def _consistent(self) -> Leaderboard:
        pools = [entry.pool for entry in self.entries]
        for pool in pools:
            if pools.count(pool) > 1:
                raise ValueError(f"the pool {quoted(pool)} occurs twice")
        for entry in self.entries:
            for result in entry.results:
                self._in_range(entry.pool, result)
        return self

    def _in_range(self, pool: str, result: Result) -> None:
        images = [size.images for size in self.sizes if size.architecture == result.architecture]
        if result.rate is None:
            return
        if not images:
            raise ValueError(
                f"{quoted(pool)} has an exchange rate of {quoted(result.architecture)}, of which "
                "`sizes` has no learning curve"
            )
        lowest, highest = ((end - self.real) / self.synthetic for end in (min(images), max(images)))
        values = (result.rate.value, result.rate.low, result.rate.high)
        for value in values:
            if value is not None and not lowest - 1e-6 <= value <= highest + 1e-6:
                raise ValueError(
                    f"{quoted(pool)} has an exchange rate of {value:g} with "
                    f"{quoted(result.architecture)}, outside {lowest:g} to {highest:g}, which the "
                    "sizes of the learning curve can tell"
                )
