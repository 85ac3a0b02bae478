"""Command ``dermaflux sources``: the datasets in a table; with ``--check`` the paper's counts.

Reads the declared counts only; no file and no network. Writes to the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable

from dermaflux.errors import InputError
from dermaflux.sources import paper_counts
from dermaflux.sources.adapter import Source
from dermaflux.sources.registry import SOURCES


def size(count: int | None) -> str:
    """Bytes as GB or MB of 10^9 and 10^6 bytes."""
    if count is None:
        return "not stated"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def overview(sources: Iterable[Source]) -> str:
    """Name, images, size, licence, access and command of each dataset."""
    lines = [f"{'name':<10} {'images':>8}  {'size':>10}  {'licence':<13} {'access':<9} title"]
    for source in sources:
        images = sum(counts.images for counts in source.counts.values())
        lines.append(
            f"{source.name:<10} {images:>8,}  {size(source.bytes):>10}  {source.licence:<13} "
            f"{source.access:<9} {source.title}"
        )
        lines.append(f"           {source.command}")
    return "\n".join(lines)


def check(sources: Iterable[Source]) -> tuple[str, list[str]]:
    """The sums as text, and one line for each that is off."""
    sources = list(sources)
    lines, wrong = [], [line for source in sources for line in paper_counts.inconsistent(source)]
    for total in paper_counts.sums(sources):
        terms = " + ".join(f"{name} {images:,}" for name, images in total.terms.items())
        lines.append(f"{total.name}: {terms} = {total.counted:,} images")
        residue = f" + {total.residue:,} unexplained" if total.residue else ""
        verdict = (
            "closes" if total.closes else f"off by {total.counted - total.residue - total.paper:+,}"
        )
        lines.append(f"    expected {total.paper:,}{residue}: {verdict}")
        if not total.closes:
            wrong.append(f"{total.name} {verdict}")
    lines.append(
        "training sums are before ingest.validation_fraction is taken from them, so the generator "
        "trains on fewer images than the paper counts"
    )
    benign, malignant, unclear = paper_counts.held_out_classes(sources)
    lines.append(
        f"held-out classes: {benign:,} benign, {malignant:,} malignant, {unclear:,} indeterminate; "
        f"the majority is {max(benign, malignant + unclear) / (benign + malignant + unclear):.1%} "
        f"when the indeterminate count as malignant, "
        f"{(benign + unclear) / (benign + malignant + unclear):.1%} when as benign"
    )
    return "\n".join(lines), wrong


def run(checking: bool) -> None:
    """Print the overview, or the check; raise `InputError` when a sum is off."""
    if not checking:
        print(overview(SOURCES.values()))
        return
    text, wrong = check(SOURCES.values())
    print(text)
    if wrong:
        raise InputError(f"{wrong[0]} ({len(wrong)} sums are off); correct the declared counts")
