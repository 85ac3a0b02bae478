from __future__ import annotations

import pytest
import torch

from dermaflux.core.devices import automatic_device


@pytest.mark.parametrize(("present", "kind"), [(True, "cuda"), (False, "cpu")])
def test_the_gpu_computes_where_there_is_one(
    present: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert automatic_device() == torch.device(kind)
