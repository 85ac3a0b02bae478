"""Seeds by name, so that no random draw depends on the draws before it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derived_seed(*parts: object) -> int:
    """sha256 of the parts mod 2^63: the seed of one image, one step, one order."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest, "big") % 2**63


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by `derived_seed`; draws do not depend on the device."""
    import torch

    return torch.Generator().manual_seed(derived_seed(*parts))
