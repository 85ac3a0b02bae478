from __future__ import annotations

import hashlib

import torch

from dermaflux.core.seeds import derived_seed, generator


def test_a_seed_is_the_hash_of_its_parts_in_63_bits() -> None:
    digest = hashlib.sha256(b"7/noise/isic/1").hexdigest()
    assert derived_seed(7, "noise", "isic/1") == int(digest, 16) % 2**63
    seeds = {derived_seed(0, index) for index in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_draw_depends_on_its_name_alone() -> None:
    first = torch.randn(4, generator=generator(0, "noise", 5))
    torch.randn(100, generator=generator(0, "noise", 4))
    torch.manual_seed(3)
    assert torch.equal(torch.randn(4, generator=generator(0, "noise", 5)), first)
    assert not torch.equal(torch.randn(4, generator=generator(1, "noise", 5)), first)
