"""`dermaflux register`: another registry gets the decision of the first as it stands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import small_registry as small

from dermaflux import paths
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.registry import promote, register, registry, rollback
from dermaflux.tracking import runs


@pytest.fixture
def clone(unpromoted: Params, empty_store: Path) -> Params:
    """Decided in one registry; another one, that of a clone, is empty."""
    promote.run(unpromoted)
    shutil.copy(empty_store, Path("mlruns") / "mlflow.db")
    return unpromoted


def champion(params: Params) -> registry.RegisteredVersion:
    return registry.require_champion(runs.connect(), params.promote.model_name)


def test_the_reported_champion_is_registered_once_though_another_leads(
    clone: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    decided = small.report()
    with pytest.raises(InputError, match="run `dermaflux register`, after `dvc pull`"):
        champion(clone)
    # In the clone, promote would choose this cell.
    small.classifier("vit-0", "real", noise=0.01, seed=7)
    for _ in range(2):
        register.run(clone)
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith("register: vit-0/mixture of reports/promote.json is version 1")
    assert second.endswith("is the champion of lesion-vit already.")
    assert small.versions(clone) == 1
    version = champion(clone)
    assert version.tags["cell"] == "vit-0/mixture"
    assert version.tags["reason"] == decided["reason"]
    assert version.tags["output_hash"] == runs.dvc_hash(paths.CLASSIFIERS / "vit-0" / "mixture")
    assert version.load().predict_images([small.image(3, True)])[0]["problem"] is None
    assert small.report() == decided


def test_a_champion_of_before_is_followed_by_the_reported_one_and_rollback_returns_it(
    clone: Params,
) -> None:
    decided = paths.PROMOTE_REPORT.read_bytes()
    small.classifier("vit-0", "real", noise=0.01, seed=7)
    promote.run(clone)
    assert champion(clone).tags["cell"] == "vit-0/real"
    paths.PROMOTE_REPORT.write_bytes(decided)
    register.run(clone)
    assert champion(clone).tags["cell"] == "vit-0/mixture"
    rollback.run(clone, "misses nodules")
    assert champion(clone).tags["cell"] == "vit-0/real"
    with pytest.raises(InputError, match="was rolled back .misses nodules.; give version 2"):
        register.run(clone)


def test_what_does_not_belong_together_is_refused(clone: Params) -> None:
    report = json.loads(paths.PROMOTE_REPORT.read_text())
    folder = paths.CLASSIFIERS / "vit-0" / "mixture"
    kept = folder.rename("kept")
    with pytest.raises(InputError, match=r"names 'vit-0/mixture' as champion but .* `dvc pull`"):
        register.run(clone)
    kept.rename(folder)
    small.classifier("vit-0", "mixture", noise=1.0, seed=9)
    with pytest.raises(InputError, match="so they are of different runs"):
        register.run(clone)
    for content, sentence in (
        ({**report, "champion": None}, "names no champion"),
        ({"reason": "", "champion": {"cell": "vit-0"}}, "is damaged"),
    ):
        paths.PROMOTE_REPORT.write_text(json.dumps(content))
        with pytest.raises(InputError, match=sentence):
            register.run(clone)
    assert small.versions(clone) == 0
