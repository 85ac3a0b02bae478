"""The eleven published datasets, in the order of the paper's Table 1."""

from __future__ import annotations

from dermaflux.sources.published import (
    ddi,
    derm12345,
    hiba,
    isic2019,
    isic2020,
    isic2024,
    kaggle1,
    kaggle2,
    mednode,
    milk10k,
    padufes20,
)

_MODULES = (
    *(mednode, hiba, derm12345, isic2019, isic2020, milk10k),
    *(padufes20, kaggle1, kaggle2, ddi, isic2024),
)
SOURCES = {module.SOURCE.name: module.SOURCE for module in _MODULES}
