"""Which prompts a pool is sampled from: `synthesize.prompt_source` and the classes asked for.

Reads the metadata of corpus/ and captions/, and the user's own file; writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dermaflux.captions.text import prompt_bank, prompt_file
from dermaflux.captions.text.prompt_bank import PromptBank
from dermaflux.core.hashing import sha256
from dermaflux.generators.data.images import (
    caption_texts,
    captioned,
    images_per_class,
    labelled,
)
from dermaflux.generators.pool import plan
from dermaflux.generators.protocol import Generator, Wanted
from dermaflux.params import Synthesize


def prompts_for(
    generator: Generator,
    section: Synthesize,
    corpus: Path,
    captions: Path,
    shares: Mapping[str, float],
) -> PromptBank:
    """The prompts that `synthesize.prompt_source` asks for; the label's where none are needed.

    `shares` names the classes that are asked for, see `shares_for`. Raises `InputError` for a class
    without prompts, and for a file that describes test images.
    """
    reads_captions = "captions" in generator.needs
    if section.conditions == "none":
        return prompt_bank.unconditional()
    source = section.prompt_source
    if reads_captions and source != "label":
        if source == "file":
            bank = own_prompts(section, corpus, captions, shares)
        else:
            rows = captioned(corpus, captions)
            bank = prompt_bank.from_captions(rows, source, section.column, shares)
        return replace(bank, each_text_once=section.prompt_draw == "text")
    if section.conditions == "diagnosis":
        return prompt_bank.from_labels(labelled(corpus), name_diagnosis=reads_captions)
    return prompt_bank.label_only()


def file_facts(section: Synthesize, generator: Generator) -> dict[str, Any]:
    """What counts.json says of the user's own prompts."""
    if section.prompt_source != "file" or "captions" not in generator.needs:
        return {}
    path = Path(section.prompt_file)
    facts = {"sha256": sha256(path.read_bytes()), "prompts": len(prompt_file.read(path))}
    return {"prompt_file": facts}


def own_prompts(
    section: Synthesize, corpus: Path, captions: Path, shares: Mapping[str, float]
) -> PromptBank:
    """The prompts of `synthesize.prompt_file`; raises `InputError` as `prompts_for` does."""
    path = Path(section.prompt_file)
    own = prompt_file.read(path)
    rows = labelled(corpus)
    known = rows[rows["diagnosis"].notna()].groupby("diagnosis")["label"].agg(set)
    bank = prompt_file.bank(own, section.column, shares, known.to_dict(), path)
    training, test = (caption_texts(corpus, captions, split) for split in ("train", "test"))
    prompt_file.refuse_test_descriptions(own, training, test, path)
    return bank


def wanted(section: Synthesize, corpus: Path) -> Wanted:
    """What a pool of released images shall show, as many of each class as would be sampled."""
    images = Counter(plan.classes(shares_for(section, corpus), section.images))
    labels = labelled(corpus).dropna(subset=[section.column]).groupby(section.column)["label"]
    return Wanted(dict(images), labels.agg(frozenset).to_dict())


def shares_for(section: Synthesize, corpus: Path) -> dict[str, float]:
    """Class -> share of the pool that is asked to show it; see `plan.shares`."""
    if section.conditions == "none":
        return {prompt_bank.UNCONDITIONAL: 1.0}
    counts = images_per_class(labelled(corpus), section.column)
    return plan.shares(section.proportions, counts)
