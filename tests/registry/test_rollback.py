from __future__ import annotations

import pytest
import small_registry as small

from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.registry import promote, registry, rollback
from dermaflux.tracking import runs


def _champion(params: Params) -> str:
    return registry.require_champion(runs.connect(), params.promote.model_name).version


def _next_champion(params: Params, noise: float, seed: int) -> str:
    small.classifier("vit-0", "mixture", noise=noise, seed=seed)
    promote.run(params)
    assert small.report()["decision"] == "promoted"
    return _champion(params)


def test_each_rollback_goes_one_champion_back(unpromoted: Params) -> None:
    client, name = runs.connect(), unpromoted.promote.model_name
    with pytest.raises(InputError, match=r"no model 'lesion-vit'.*dermaflux register"):
        rollback.run(unpromoted, "nothing there")
    small.classifier("vit-0", "real", noise=8.0, seed=8)
    first = _next_champion(unpromoted, noise=6.0, seed=2)
    with pytest.raises(InputError, match=r"version 1 .* is the first champion"):
        rollback.run(unpromoted, "too early")
    second = _next_champion(unpromoted, noise=1.2, seed=4)
    third = _next_champion(unpromoted, noise=0.05, seed=3)
    assert [first, second, third] == ["1", "2", "3"]

    rollback.run(unpromoted, "it calls moles malignant")
    assert _champion(unpromoted) == second
    left = client.get_model_version(name, third)
    assert left.tags[registry.ROLLED_BACK] == "it calls moles malignant"
    assert "rolled back: version 2" in client.get_registered_model(name).tags["last_decision"]

    # The same candidate is still the best by far, and must not come back by itself.
    promote.run(unpromoted)
    report = small.report()
    assert report["decision"] == "kept"
    assert "was rolled back (it calls moles malignant)" in str(report["reason"])
    assert _champion(unpromoted) == second

    rollback.run(unpromoted, "neither")
    assert _champion(unpromoted) == first
    with pytest.raises(InputError, match="none to go back to"):
        rollback.run(unpromoted, "once more")

    # A person can; then it is the champion by choice.
    client.set_registered_model_alias(name, "champion", third)
    promote.run(unpromoted)
    assert small.report()["decision"] == "unchanged"
    rollback.run(unpromoted, "again")
    assert _champion(unpromoted) == first


def test_a_deleted_champion_is_passed_over(unpromoted: Params) -> None:
    client, name = runs.connect(), unpromoted.promote.model_name
    small.classifier("vit-0", "real", noise=8.0, seed=8)
    for noise, seed in ((6.0, 2), (1.2, 4), (0.05, 3)):
        _next_champion(unpromoted, noise, seed)
    client.delete_model_version(name, "2")
    rollback.run(unpromoted, "back")
    assert _champion(unpromoted) == "1"
