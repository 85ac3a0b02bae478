"""How many seeds a small gain takes, from the cells at hand, and what they cost.

Reads reports/evaluate/ and corpus/; writes nothing.
"""

from __future__ import annotations

from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.reporting import evidence_section, results
from dermaflux.statistics import evaluations, evidence, seed_means
from dermaflux.sweeps import plan


def lines(params: Params, seconds_per_seed: float) -> list[str]:
    """One line per architecture of `params`, whose cells in this checkout are the pilot.

    `seconds_per_seed`: what one seed of the whole grid costs.
    """
    small = f"a gain of {evidence.SMALL:g}"
    try:
        cells = evaluations.load(params)
        means = seed_means.means(params, cells)
    except InputError:
        return [
            f"how many seeds {small} takes is not known: the cells of params.yaml, from which it "
            "would follow, are not evaluated here"
        ]
    test_images = int(cells[0].test["images"])
    found = evidence_section.build(params, means, results.headline(params), test_images)
    said = []
    for name, each in found.items():
        needed = each.evidence.needed
        if needed.seeds is None:
            said.append(f"  {name}: {small} cannot be seen: {needed.reason}")
        else:
            cost = plan.duration(needed.seeds * seconds_per_seed)
            said.append(f"  {name}: {small} takes {needed.seeds} seeds, about {cost} for the grid")
    return said
