"""Which candidates are kept, and what a pool of them promises; no model is loaded here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from drawn_selector import WEIGHT, Noise, draw_selector, write_labels

from dermaflux.core import table
from dermaflux.core.distributed import Processes
from dermaflux.core.images import decode_image
from dermaflux.errors import InputError
from dermaflux.generators import registry, reproduce, synthesize
from dermaflux.generators.flux_lora import settings
from dermaflux.generators.pool import selection
from dermaflux.generators.protocol import Models
from dermaflux.params import Synthesize
from dermaflux.tracking.runs import Silent

PLAIN = Synthesize(images=12, batch=4, shard_images=5, flux_lora=settings.Synthesize())
UNCERTAIN = PLAIN.model_copy(update={"select": "uncertain", "candidates": 3})
MODELS = Models(Path("generator"), Path("backbone"))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_entropy_is_that_of_torch_as_a_share_of_an_undecided_prediction(classes: int) -> None:
    logits = torch.randn(50, classes, dtype=torch.float64, generator=torch.manual_seed(0)) * 4
    expected = torch.distributions.Categorical(logits=logits).entropy() / np.log(classes)
    found = [selection.entropy(row) for row in logits.log_softmax(1).numpy()]
    assert found == pytest.approx(expected.tolist(), rel=1e-12)
    assert selection.entropy(np.log(np.full(classes, 1 / classes))) == pytest.approx(1)
    assert selection.entropy(np.array([0.0, *[-np.inf] * (classes - 1)])) == 0


def test_a_prediction_that_is_nearly_sure_is_told_from_one_that_is_surer() -> None:
    surer, sure = (
        selection.entropy(torch.tensor([0.0, logit], dtype=torch.float64).log_softmax(0).numpy())
        for logit in (60.0, 50.0)
    )
    assert 0 < surer < sure < 1e-18


def test_the_kept_are_those_of_a_search_through_all_subsets_of_a_class() -> None:
    draw = np.random.default_rng(3)
    classes = [str(name) for name in draw.choice(["a", "b", "c"], 40, p=[0.6, 0.3, 0.1])]
    scores = draw.integers(0, 6, 40) / 6  # with ties
    kept = selection.keep(classes, scores.tolist(), 13)
    assert kept == sorted(set(kept))
    assert Counter(classes[n] for n in kept) == Counter(classes[:13])
    for out in set(range(40)) - set(kept):
        rivals = [n for n in kept if classes[n] == classes[out]]
        assert all((-scores[n], n) < (-scores[out], out) for n in rivals)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn selector: torch.export takes seconds to load."""
    path = tmp_path_factory.mktemp("selector") / "selector.pt2"
    draw_selector(path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Path) -> Path:
    """A checkout with labelled training images, a selector, and a generator of noise."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "generator", lambda name: Noise())
    write_labels(tmp_path / "corpus")
    shutil.copy(program, "selector.pt2")
    return tmp_path


def pool(output: str, section: Synthesize, log: Silent | None = None, **more: object) -> Path:
    paths = [Path(name) for name in ("corpus", "captions")]
    synthesize.synthesize(
        "flux_lora", section, 7, *paths, MODELS, Path(output), log or Silent(),
        selector=Path("selector.pt2"), **more,  # type: ignore[arg-type]
    )  # fmt: skip
    return Path(output)


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def certainty(encoded: bytes) -> float:
    """|log-odds| of the drawn selector, by hand: the less, the more undecided."""
    return abs(float(np.asarray(decode_image(encoded)).astype(float).mean() - 127.5) * WEIGHT)


@pytest.mark.parametrize(
    ("changes", "classes"),
    [
        ({}, {"benign": 6, "malignant": 6}),
        ({"proportions": {"benign": 0.75, "malignant": 0.25}}, {"benign": 9, "malignant": 3}),
        ({"conditions": "none"}, {"indeterminate": 12}),
    ],
)
def test_a_pool_holds_what_scoring_and_sorting_all_candidates_gives(
    here: Path, changes: dict[str, object], classes: dict[str, int]
) -> None:
    chosen = pool("chosen", UNCERTAIN.model_copy(update=changes))
    every = pool("every", PLAIN.model_copy(update={**changes, "images": 36}))
    label = table.metadata(every).set_index("image_id")["label"]
    scored = sorted(table.images(every), key=lambda item: certainty(item[1]))
    expected = {
        name: [item for item in scored if label[item[0]] == name][:count]
        for name, count in classes.items()
    }
    assert dict(table.images(chosen)) == {k: v for part in expected.values() for k, v in part}
    rows = table.metadata(chosen, (*table.METADATA, *table.CHOICE))
    assert rows["label"].value_counts().to_dict() == classes
    assert (rows["candidates"] == 3).all()
    assert len(table.shards(chosen)) == 3
    listed = table.metadata(table.candidates(chosen), (*table.METADATA, *table.CHOICE))
    assert listed[list(table.METADATA)].equals(table.metadata(every))
    odds = [certainty(encoded) for _, encoded in table.images(every)]
    entropies = torch.distributions.Bernoulli(logits=torch.tensor(odds)).entropy() / np.log(2)
    assert listed["uncertainty"].to_numpy() == pytest.approx(entropies.numpy(), abs=1e-6)


class Stop(Silent):
    """Stops at a batch, as Control-C would."""

    def metrics(self, values, step):  # type: ignore[no-untyped-def]
        if step == 5:
            raise KeyboardInterrupt


def test_what_was_stopped_and_what_processes_share_has_the_same_bytes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files(pool("whole", UNCERTAIN))
    with pytest.raises(KeyboardInterrupt):
        pool("stopped", UNCERTAIN, Stop())
    assert not Path("stopped").exists()
    assert files(pool("stopped", UNCERTAIN)) == whole
    # The second of two processes does its share; the first one does its own, and puts all in place.
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    pool("shared", UNCERTAIN, processes=Processes(1, 2))
    assert not Path("shared").exists()
    assert files(pool("shared", UNCERTAIN, processes=Processes(0, 2))) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
import test_chosen_pool as chosen_pool
from dermaflux.generators import registry
from dermaflux.tracking.runs import Silent

class Fatal(Silent):
    def metrics(self, values, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

registry.generator = lambda name: chosen_pool.Noise()
chosen_pool.pool("killed", chosen_pool.UNCERTAIN, Fatal())
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(here: Path) -> None:
    whole = files(pool("whole", UNCERTAIN))
    places = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": places}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=here, env=environment, check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert list(here.glob(".dermaflux/checkpoints/synthesize/*/shard-*.parquet"))
    assert not Path("killed").exists()
    assert files(pool("killed", UNCERTAIN)) == whole


def test_a_chosen_image_is_sampled_again_in_its_batch_of_candidates(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = pool("chosen", UNCERTAIN)
    for image_id in table.metadata(chosen)["image_id"][::4]:
        for alone in (False, True):
            again, stored = reproduce.sample_again(image_id, chosen, MODELS, alone)
            assert np.array_equal(again, stored)
    noise = Noise()
    monkeypatch.setattr(registry, "generator", lambda name: noise)
    reproduce.sample_again(image_id, chosen, MODELS)
    reproduce.sample_again(image_id, chosen, MODELS, alone=True)
    assert noise.asked == [PLAIN.batch, 1]


def test_without_choosing_a_pool_is_as_before_and_no_selector_is_read(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("choice", "selector"):
        monkeypatch.setitem(sys.modules, f"dermaflux.generators.pool.{module}", None)
    Path("selector.pt2").unlink()
    plain = pool("plain", PLAIN)
    assert sorted(files(plain)) == [f"train-{n:05d}-of-00003.parquet" for n in range(3)]
    assert all(pq.read_schema(path).equals(table.SCHEMA, True) for path in table.shards(plain))


def test_the_page_counts_what_the_images_were_chosen_from(here: Path) -> None:
    from dermaflux.reporting import counts

    pool("synthetic", UNCERTAIN)
    kept, every = (
        table.metadata(folder, ["uncertainty"])["uncertainty"].mean()
        for folder in (Path("synthetic"), table.candidates(Path("synthetic")))
    )
    sentence = counts.chosen()
    assert "of 36 sampled ones, the 12 of" in sentence
    assert f"{kept:.3f}, of all {every:.3f};" in sentence
    assert kept > every
    shutil.rmtree("synthetic")
    pool("synthetic", PLAIN)
    assert counts.chosen() == ""


def test_a_disk_that_cannot_hold_the_candidates_is_told_before_sampling(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    large = UNCERTAIN.model_copy(update={"images": 4000, "scale": 256, "shard_images": 4000})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 2_000_000_000))
    monkeypatch.setattr(Noise, "__call__", lambda *_: pytest.fail("an image was sampled"))
    with pytest.raises(
        InputError, match=r"needs 3\.1 GB .* has 2\.0 GB free; .*candidates 3 or .* 4,000$"
    ):
        pool("large", large)


def test_a_missing_or_damaged_selector_is_one_sentence(here: Path) -> None:
    Path("selector.pt2").write_bytes(b"PK and nothing else")
    with pytest.raises(InputError, match="selector.pt2 is damaged .* run the stage selector"):
        pool("damaged", UNCERTAIN)
    Path("selector.pt2").unlink()
    with pytest.raises(InputError, match="selector.pt2 is missing, .* run the stage selector"):
        pool("missing", UNCERTAIN)
