"""Prompts so that a pool has a wanted distribution of skin tones or diagnoses. Pure.

No generator learns of it: each image is asked for with the prompt of a training image that has the
value. Counts are exact: within each class asked for, the wanted shares by the largest remainder
(Hamilton's method); of equal remainders, the value that lacks more in the classes before.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dermaflux.captions.text.prompt_bank import Prompt, PromptBank
from dermaflux.core.vocabulary import SKIN_TONE_PAIRS
from dermaflux.errors import InputError, quoted
from dermaflux.generators.pool.plan import Cell, classes
from dermaflux.params import Synthesize

_ROUNDING = 0.005  # of shares written with two decimals, as `synthesize.proportions`


@dataclass(frozen=True)
class Target:
    """A wanted distribution that the prompts of a bank can give."""

    attribute: str
    """`skin_tone` or `diagnosis`."""
    within: Mapping[str, Mapping[str, float]]
    """Class -> value -> share of the class; the shares of a class add up to 1."""
    images: int
    """Of the pool, whose counts are exact; of further candidates, those of each such pool are."""

    def cells(self, names: Sequence[str]) -> list[Cell]:
        """Of the images of the classes `names`, in order."""
        found: Counter[str] = Counter()
        values: dict[str, list[str]] = {}
        for name, number in Counter(names[: self.images]).items():
            each = counts(number, self.within[name], found)
            found.update(each)
            values[name] = spread(each)
        seen: Counter[str] = Counter()
        cells = []
        for name in names:
            of_class = values.get(name) or spread(counts(self.images, self.within[name], found))
            cells.append(Cell(name, of_class[seen[name] % len(of_class)]))
            seen[name] += 1
        return cells

    def skin_tone(self, cell: Cell) -> str | None:
        """Column of the table; None where the skin tone is not what was wanted."""
        return cell.value if self.attribute == "skin_tone" else None


def counts(total: int, shares: Mapping[str, float], given: Mapping[str, int]) -> dict[str, int]:
    """Value -> images of `total`, by the largest remainder.

    `given`: images that the classes before have of each value, which decide between remainders that
    are equal; then the order of `shares` does.
    """
    quotas = {value: total * share for value, share in shares.items()}
    found = {value: int(quota + 1e-9) for value, quota in quotas.items()}
    before = sum(given.get(value, 0) for value in shares)
    order = sorted(
        shares,
        key=lambda value: (
            round(found[value] - quotas[value], 6),
            round(given.get(value, 0) - before * shares[value], 6),
        ),
    )
    for value in order[: total - sum(found.values())]:
        found[value] += 1
    return found


def spread(counts: Mapping[str, int]) -> list[str]:
    """Each value as often as its count says, evenly, as `plan.classes` spreads classes."""
    total = sum(counts.values())
    return list(classes({value: count / total for value, count in counts.items()}, total))


def covers(wanted: str, value: str | None) -> bool:
    """Whether an image of a skin tone or diagnosis counts for the wanted one: I and II for I-II."""
    return value is not None and wanted in (value, SKIN_TONE_PAIRS.get(value))


def target(
    section: Synthesize, bank: PromptBank, shares: Mapping[str, float]
) -> tuple[Target, PromptBank] | None:
    """What `synthesize.wanted` asks for, and the prompts of each cell; None where it is null.

    `shares` of the classes asked for, see `plan.shares`. Skin tones have the wanted shares within
    each class, so that tone and class stay independent. Shares of diagnoses are of the pool; a
    diagnosis belongs to one class, whose share of the pool they have to add up to. Raises
    `InputError` for a value of which there is no prompt, and for shares that do not fit.
    """
    if section.wanted is None:
        return None
    attribute, wanted = next(iter(section.wanted.items()))
    prompts = {
        name: {
            value: tuple(p for p in bank.prompts[name] if covers(value, getattr(p, attribute)))
            for value in wanted
        }
        for name in shares
        if shares[name]
    }
    for value in wanted:
        if not any(of_class[value] for of_class in prompts.values()):
            raise _unknown(section, attribute, value, bank)
    if attribute == "skin_tone":
        within = _alike(wanted, prompts)
    else:
        within = _of_diagnoses(wanted, prompts, shares)
    cells = {
        Cell(name, value).key: prompts[name][value] for name in within for value in within[name]
    }
    return Target(attribute, within, section.images), replace(bank, prompts=cells)


def _alike(
    wanted: Mapping[str, float], prompts: Mapping[str, Mapping[str, tuple[Prompt, ...]]]
) -> dict[str, dict[str, float]]:
    total = sum(wanted.values())
    for name, of_class in prompts.items():
        for value in wanted:
            if not of_class[value]:
                raise InputError(
                    f"synthesize.wanted asks for the skin tone {quoted(value)} in every class but "
                    f"no prompt of the class {name} describes such an image; leave it out, or add "
                    "such images"
                )
    return {name: {value: share / total for value, share in wanted.items()} for name in prompts}


def _of_diagnoses(
    wanted: Mapping[str, float],
    prompts: Mapping[str, Mapping[str, tuple[Prompt, ...]]],
    shares: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    within: dict[str, dict[str, float]] = {name: {} for name in prompts}
    for value, share in wanted.items():
        names = [name for name, of_class in prompts.items() if of_class[value]]
        if len(names) > 1:
            raise InputError(
                f"synthesize.wanted asks for {quoted(value)}, which training images of the classes "
                f"{' and '.join(names)} have; set synthesize.conditions to diagnosis and give the "
                "shares as synthesize.proportions"
            )
        within[names[0]][value] = share
    total = sum(wanted.values())
    found = {name: sum(of_class.values()) / total for name, of_class in within.items()}
    if any(abs(found[name] - shares[name]) > _ROUNDING for name in found):
        written = ", ".join(f"{name}: {share:.4g}" for name, share in found.items() if share)
        raise InputError(
            "the diagnoses of synthesize.wanted add up to "
            + " and ".join(f"{share:.4g} {name}" for name, share in found.items())
            + " but synthesize.proportions asks for "
            + " and ".join(f"{shares[name]:.4g} {name}" for name in found)
            + f"; set proportions to {{{written}}}, or correct the shares"
        )
    return {
        name: {value: share / sum(of_class.values()) for value, share in of_class.items()}
        for name, of_class in within.items()
    }


def _unknown(section: Synthesize, attribute: str, value: str, bank: PromptBank) -> InputError:
    known = {getattr(p, attribute) for prompts in bank.prompts.values() for p in prompts}
    present = sorted(each for each in known if each is not None)
    words = attribute.replace("_", " ")
    if not present:
        return InputError(
            f"synthesize.wanted asks for the {words} {quoted(value)} but prompts of this generator "
            f"from {section.prompt_source!r} say of no image which it has; set "
            "synthesize.prompt_source to captions with a generator that reads them, or wanted to "
            "null"
        )
    close = difflib.get_close_matches(value.lower(), present, n=3) or present[:6]
    return InputError(
        f"synthesize.wanted asks for the {words} {quoted(value)} but no prompt describes such an "
        f"image; write {' or '.join(close)}, or leave it out"
    )
