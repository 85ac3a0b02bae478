"""Stage `synthesize`: the pool of synthetic images, with provenance for every one.

Reads models/generator/, models/backbone/, captions of training images; writes synthetic/, shards of
the one table, and reports/synthesize/. A collection of released images takes the place of sampled
ones. With `select` the pool is what the classifier in models/selector/ is least certain of, out of
several times as many images. Run with `dermaflux synthesize`; `dermaflux reproduce IMAGE_ID`
samples one again. The parameter `runtime.accelerate` spreads the shards over GPUs and machines; it
changes no result.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux import paths
from dermaflux.core import checkpoints, distributed, table
from dermaflux.core.arrays import Pixels
from dermaflux.core.checkpoints import Checkpoint
from dermaflux.core.code_digest import stage_digest
from dermaflux.core.distributed import SINGLE, Processes
from dermaflux.core.files import atomic_folder
from dermaflux.core.hashing import sha256
from dermaflux.core.images import encode_png
from dermaflux.generators import registry
from dermaflux.generators.pool import plan, prompts, report, shards, wanted
from dermaflux.generators.pool.plan import PlannedImage, SamplingBatch, Shard
from dermaflux.generators.protocol import Collection, Generator, Models, Sampler
from dermaflux.params import Params, Synthesize
from dermaflux.tracking import runs
from dermaflux.tracking.runs import Log, Silent

if TYPE_CHECKING:
    from dermaflux.generators.pool.choice import Choice

_MODELS = Models(paths.GENERATOR, paths.BACKBONE)


def run(params: Params) -> None:
    """Write synthetic/ and log images a second as an MLflow run."""
    name, section = params.generator, params.synthesize
    parameters = {"seed": params.seed, **section.chosen(name)}
    generator = registry.generator(name)
    if isinstance(generator, Collection):
        with runs.start("generator", "synthesize", parameters, inputs=[]) as log:
            settings = section.settings(name)
            shown = prompts.wanted(section, paths.CORPUS)
            generator.collect(section, settings, paths.SYNTHETIC, paths.SYNTHESIZE_REPORT, shown)
            log.outputs(paths.SYNTHETIC)
        return
    processes = distributed.join()
    arguments = (section, params.seed, paths.CORPUS, paths.CAPTIONS, _MODELS, paths.SYNTHETIC)
    if not processes.main:
        synthesize(name, *arguments, Silent(), processes)
        return
    inputs = [paths.CORPUS, paths.GENERATOR]
    inputs += [paths.CAPTIONS] * ("captions" in generator.needs)
    inputs += [paths.BACKBONE] * ("backbone" in generator.needs)
    inputs += [paths.SELECTOR] * (section.select != "none")
    with runs.start("generator", "synthesize", parameters, inputs) as log:
        counts = synthesize(name, *arguments, log, processes)
        counts = {**(counts or {}), **prompts.file_facts(section, generator)}
        report.write(paths.SYNTHETIC, paths.SYNTHESIZE_REPORT, [], counts, section.column)
        log.outputs(paths.SYNTHETIC)


def synthesize(
    name: str,
    section: Synthesize,
    seed: int,
    corpus: Path,
    captions: Path,
    models: Models,
    output: Path,
    log: Log,
    processes: Processes = SINGLE,
    selector: Path = paths.SELECTOR_PROGRAM,
) -> dict[str, Any] | None:
    """Sample the pool shard by shard; a killed call continues after its last finished batch.

    Every process samples its shards, the main one puts all in place, or those that are chosen, of
    which it returns what counts.json says.
    """
    generator = registry.generator(name)
    assert isinstance(generator, Generator)
    settings = section.settings(name).model_dump()
    shares = prompts.shares_for(section, corpus)
    sampler = generator.open(models, settings, section.batch)
    bank = prompts.prompts_for(generator, section, corpus, captions, shares)
    target, bank = wanted.target(section, bank, shares) or (None, bank)
    choice = _choice(section, selector)
    planned = section.images * (choice.candidates if choice else 1)
    images = plan.plan(planned, bank, shares, section.scale, seed, target)
    groups = sampler.groups([image.condition for image in images])
    pool = plan.shards(groups, section.shard_images, section.batch)

    constants = _constants(name, sampler)

    def make_batch(batch: SamplingBatch) -> Pixels:
        return sampler([images[index].condition for index in batch.members])

    def make_row(index: int, pixels: Pixels, batch: int) -> dict[str, Any]:
        chosen = choice.columns(pixels) if choice else {}
        return _row(images[index], pixels, constants | chosen | {"batch": batch})

    key = _key(name, section, sampler, seed, images, choice)
    with _shared_checkpoint(key, processes, output) as saved:
        started = time.monotonic()
        finished = [s for s in pool if shards.shard_file(saved, s).exists()]
        resumed = bool(finished) or any(saved.file(".").glob("batch-*"))
        if choice and processes.main:
            sampled = sum(len(shard.members) for shard in finished)
            choice.require_room(saved.file("."), sampled, section.scale)
        schema = table.CHOSEN_SCHEMA if choice else table.SCHEMA
        shards.sample_share(pool, saved, processes, make_batch, make_row, log, schema)
        if not processes.main:
            return None
        shards.wait(pool, saved, processes)
        shown = [image.cell.key for image in images]
        facts = _put_in_place(pool, saved, choice, shown, section.shard_images, output)
        saved.discard()
        print(_made(section, shown, facts, output, None if resumed else time.monotonic() - started))
        return facts


def _put_in_place(
    pool: Sequence[Shard],
    saved: Checkpoint,
    choice: Choice | None,
    shown: Sequence[str],
    shard_images: int,
    output: Path,
) -> dict[str, Any] | None:
    """All finished shards, or those of the chosen images; what counts.json says of a choice."""
    with atomic_folder(output) as partial:
        if choice is None:
            shards.assemble(pool, saved, partial)
            return None
        files = [shards.shard_file(saved, shard) for shard in pool]
        return choice.write(files, shown, shard_images, partial)


def _choice(section: Synthesize, selector: Path) -> Choice | None:
    """How images are chosen; None where all that are sampled are the pool."""
    if section.select == "none":
        return None
    from dermaflux.generators.pool.choice import Choice
    from dermaflux.generators.pool.selector import Selector

    return Choice(Selector(selector), section.images, section.candidates)


def _made(
    section: Synthesize,
    shown: Sequence[str],
    facts: Mapping[str, Any] | None,
    output: Path,
    seconds: float | None,
) -> str:
    """The line that ends the stage; `seconds` is None when an earlier call made a part.

    `shown`: the class of every image that was sampled, of which those of the pool come first.
    """
    counts = Counter(shown[: section.images])
    classes = ", ".join(f"{count:,} {label}" for label, count in sorted(counts.items()))
    speed = f", {len(shown) / seconds:.3g} images/s" if seconds else ""
    line = f"synthesize: {section.images:,} images of {section.scale} px ({classes}) in {output}"
    if facts is None:
        return line + speed
    kept, everywhere = (facts["uncertainty"][name] for name in ("kept", "candidates"))
    return (
        f"{line}, the least certain of {len(shown):,} (mean uncertainty {kept:.3f}, of all "
        f"{everywhere:.3f}){speed}"
    )


def _key(
    name: str,
    section: Synthesize,
    sampler: Sampler,
    seed: int,
    images: Sequence[PlannedImage],
    choice: Choice | None,
) -> str:
    return checkpoints.fingerprint(
        code=stage_digest("synthesize", generator=name),
        section=section.chosen(name),
        sampler=dict(sampler.settings),
        weights=sampler.provenance.weights,
        selector=choice and choice.selector.digest,
        backbone=sampler.provenance.backbone,
        seed=seed,
        prompts=[
            (image.condition.prompt, image.condition.label, image.condition.diagnosis)
            for image in images
        ],
    )


@contextlib.contextmanager
def _shared_checkpoint(key: str, processes: Processes, output: Path) -> Iterator[Checkpoint]:
    """One checkpoint for all processes, opened by the main one; each is known to live in it."""
    with checkpoints.checkpoint("synthesize", key, processes.main, output=output) as saved:
        processes.wait()
        with shards.present(saved, processes):
            processes.wait()
            yield saved


def _constants(name: str, sampler: Sampler) -> dict[str, Any]:
    """The columns that are the same in every row of a pool."""
    settings, provenance = sampler.settings, sampler.provenance
    return {
        "source": "synthetic",
        "split": "train",
        "modality": "synthetic",
        "licence": provenance.licence,
        "generator": name,
        "weights": provenance.weights,
        "steps": settings.get("steps"),
        "guidance": settings.get("guidance"),
        "sampler_settings": table.settings_json(settings),
    }


def _row(image: PlannedImage, pixels: Pixels, constants: dict[str, Any]) -> dict[str, Any]:
    encoded, condition = encode_png(pixels), image.condition
    return constants | {
        "image": {"bytes": encoded, "path": f"{image.image_id}.png"},
        "image_id": image.image_id,
        "label": condition.label,
        "diagnosis": condition.diagnosis,
        "skin_tone": image.skin_tone,
        "skin_tone_origin": image.skin_tone and "wanted",
        "prompt": condition.prompt,
        "seed": condition.seed,
        "scale": condition.scale,
        "width": condition.scale,
        "height": condition.scale,
        "sha256": sha256(encoded),
    }
