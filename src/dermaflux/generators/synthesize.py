"""Stage `synthesize`: the pool of synthetic images, with provenance for every one.

Reads models/generator/, models/backbone/, captions of training images; writes synthetic/, shards of
the one table, and reports/synthesize/. With `generator: folder` released images take their place.
Run with `dermaflux synthesize`; `dermaflux reproduce IMAGE_ID` makes one again. The parameter
`accelerate` spreads the shards over GPUs and machines; it changes no result.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.captions.text import prompt_bank
from dermaflux.captions.text.prompt_bank import PromptBank
from dermaflux.core import checkpoints, table
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.files import atomic_folder
from dermaflux.core.hashing import sha256
from dermaflux.errors import InputError
from dermaflux.generators.data.images import captioned
from dermaflux.generators.flux_lora.model import lora, pipeline
from dermaflux.generators.flux_lora.model.prompt_padding import Policy, text_lengths
from dermaflux.generators.flux_lora.sampling import load
from dermaflux.generators.flux_lora.sampling.sample import Pictures, Sampler, sample
from dermaflux.generators.pool import plan as sampling_plan
from dermaflux.generators.pool import report
from dermaflux.generators.pool import shards as sampled_shards
from dermaflux.generators.pool.plan import Batch, Plan, plan
from dermaflux.generators.released import images
from dermaflux.params import Params, Synthesize
from dermaflux.params.generators import BaseDtype
from dermaflux.tracking import runs
from dermaflux.tracking.runs import Log, Silent
from dermaflux.training import distributed
from dermaflux.training.distributed import SINGLE, Processes

if TYPE_CHECKING:
    from diffusers import FluxPipeline

_INPUTS = (paths.CORPUS, paths.CAPTIONS, paths.BACKBONE, paths.GENERATOR)


@dataclass(frozen=True)
class Weights:
    """The fine-tuned generator's files."""

    sha256: str
    """Of the LoRA file; manifests name it."""
    text_policy: Policy
    base_dtype: BaseDtype
    """How the base was held in training."""


def run(params: Params) -> None:
    """Write synthetic/ and log images a second as an MLflow run."""
    section = params.synthesize
    if params.generator == "folder":
        images.run(params)
        return
    team = distributed.join()
    if not team.main:
        synthesize(section, params.seed, *_INPUTS, paths.SYNTHETIC, Silent(), team)
        return
    parameters = {"seed": params.seed, **section.model_dump()}
    with runs.start("generator", "synthesize", parameters, inputs=_INPUTS) as log:
        synthesize(section, params.seed, *_INPUTS, paths.SYNTHETIC, log, team)
        report.write(paths.SYNTHETIC, paths.SYNTHESIZE_REPORT, [])
        log.outputs(paths.SYNTHETIC)


def synthesize(
    section: Synthesize,
    seed: int,
    corpus: Path,
    captions: Path,
    backbone: Path,
    folder: Path,
    output: Path,
    log: Log,
    team: Processes = SINGLE,
) -> None:
    """Sample the pool shard by shard; a killed call continues after its last finished batch.

    Every process of the team samples its shards, the main one puts all in place.
    """
    weights = read_weights(folder, backbone)
    plans = plan(section.images, bank_of(section, corpus, captions), seed)
    _, tokenizer = pipeline.tokenizers(backbone)
    lengths = text_lengths(tokenizer, [one.prompt for one in plans], weights.text_policy)
    shards = sampling_plan.shards(lengths, section.shard_images, section.batch)
    base_dtype = section.base_dtype or weights.base_dtype
    origin = pipeline.reference(backbone)
    key = checkpoints.fingerprint(
        section=section.model_dump(), seed=seed, weights=weights.sha256, backbone=origin.identity,
        base_dtype=base_dtype, prompts=[(one.prompt, one.diagnosis) for one in plans],
    )  # fmt: skip
    constants = {
        "source": "synthetic", "split": "train", "modality": "synthetic",
        "licence": origin.licence, "generator": f"{origin.name}+lora", "weights": weights.sha256,
        "base_dtype": base_dtype, "text_policy": weights.text_policy,
        "width": section.scale, "height": section.scale, "scale": section.scale,
        "steps": section.steps, "guidance": section.guidance,
    }  # fmt: skip

    def make_row(index: int, picture: Pictures, batch: int) -> dict[str, Any]:
        return _row(plans[index], picture, constants | {"batch": batch})

    sampler = Sampler(section.steps, section.guidance, section.scale, weights.text_policy)
    fill = section.batch if section.compile else 0
    make_batch = _Lazy(folder, backbone, base_dtype, section.compile, sampler, plans, fill)
    with _joint_checkpoint(key, team) as saved:
        sampled_shards.sample_share(shards, saved, team, make_batch, make_row, log)
        if team.main:
            sampled_shards.wait(shards, saved, team)
            with atomic_folder(output) as partial:
                sampled_shards.assemble(shards, saved, partial)
                _cross_border(section, partial)
            saved.discard()


@contextlib.contextmanager
def _joint_checkpoint(key: str, team: Processes) -> Iterator[Checkpoint]:
    """One checkpoint for all processes, opened by the main one; each is known to live in it."""
    with checkpoints.checkpoint("synthesize", key, team.main) as saved:
        team.wait()
        with sampled_shards.present(saved, team):
            team.wait()
            yield saved


class _Lazy:
    """Samples batches; loads the generator when the first one is asked for."""

    def __init__(
        self,
        folder: Path,
        backbone: Path,
        base_dtype: BaseDtype,
        compiled: bool,
        sampler: Sampler,
        plans: Sequence[Plan],
        fill: int,
    ) -> None:
        self._files = (folder, backbone, base_dtype, compiled)
        self._sampler, self._plans, self._fill = sampler, plans, fill
        self._pipe: FluxPipeline | None = None

    def __call__(self, batch: Batch) -> Pictures:
        """Pictures of the batch, uint8 (B, H, W, 3)."""
        if self._pipe is None:
            self._pipe = load.open_generator(*self._files)
        # A compiled model has one shape per text length: the last batch of each is filled up.
        places = [*batch.members, *[batch.members[-1]] * (self._fill - len(batch.members))]
        members = [self._plans[place] for place in places]
        pictures = sample(
            self._pipe,
            self._sampler,
            [one.prompt for one in members],
            [one.seed for one in members],
        )
        return pictures[: len(batch.members)]


def _cross_border(section: Synthesize, folder: Path) -> None:
    """Check the written shards with the suite `synthetic`."""
    from dermaflux.validation import pool_suite

    sampler = {"steps": section.steps, "guidance": section.guidance}
    pool_suite.check(table.metadata(folder), section.images, section.scale, sampler)


def read_weights(folder: Path, backbone: Path) -> Weights:
    """The generator's files, checked; `InputError` when absent or made for another backbone."""
    file, settings = folder / lora.WEIGHTS, folder / lora.SETTINGS
    if not (file.exists() and settings.exists()):
        raise InputError(f"{folder} holds no {lora.WEIGHTS}; run the stage `finetune`")
    facts = json.loads(settings.read_text(encoding="utf-8"))
    if facts["backbone"] != pipeline.reference(backbone).identity:
        raise InputError(
            f"{folder} was fine-tuned on another backbone than {backbone} holds; run the stage "
            "`finetune` again"
        )
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Weights(digest, facts["text_policy"], facts["base_dtype"])


def bank_of(section: Synthesize, corpus: Path, captions: Path) -> PromptBank:
    """The prompts that the parameter `bank` asks for."""
    if section.bank == "label":
        return prompt_bank.label_only()
    known = table.metadata(corpus, ["image_id", "diagnosis"], "train")
    rows = captioned(corpus, captions).merge(known, on="image_id", validate="one_to_one")
    return prompt_bank.from_captions(rows, section.bank)


def _row(one: Plan, picture: Pictures, constants: dict[str, Any]) -> dict[str, Any]:
    encoded = png(picture)
    return constants | {
        "image": {"bytes": encoded, "path": f"{one.image_id}.png"},
        "image_id": one.image_id,
        "label": one.label,
        "diagnosis": one.diagnosis,
        "prompt": one.prompt,
        "seed": one.seed,
        "sha256": sha256(encoded),
    }


def png(picture: Pictures) -> bytes:
    """Lossless, so that a picture made again can be compared bit for bit."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
