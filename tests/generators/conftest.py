"""A backbone trained for two steps, with a corpus: real files, a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from generator_cases import CASES, POOL
from small_generator import TINY, Workspace, corpus_row, write_corpus

from dermaflux.tracking.runs import Silent


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    from dermaflux.generators.tiny_flux import training

    root = tmp_path_factory.mktemp("generators")
    (root / ".dvc").mkdir()
    rows = [corpus_row(index, 256 if index % 4 == 3 else 128) for index in range(9)]
    rows.append(corpus_row(9, 128, split="test"))
    rows += [corpus_row(index, 128, split="validation") for index in (10, 12, 13)]
    corpus, captions = write_corpus(root, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DVC_ROOT", raising=False)
        patch.chdir(root)
        training.train(TINY, 0, root / "backbone", Silent())
    return Workspace(root, corpus, captions, root / "backbone")


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """With another number of threads sums round in another order, and some pixels differ by 1."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread() -> Iterator[None]:
    with _on_one_thread():
        yield


@dataclass(frozen=True)
class Pool:
    """A synthetic pool, and what made it."""

    folder: Path
    generator: Path


@pytest.fixture(scope="session")
def pools(workspace: Workspace) -> Callable[[str], Pool]:
    """The pool of a generator by name: made once, by one process on one thread, unbroken."""
    made: dict[str, Pool] = {}

    def pool(name: str) -> Pool:
        if name not in made:
            made[name] = _pool(workspace, name)
        return made[name]

    return pool


def _pool(workspace: Workspace, name: str) -> Pool:
    from dermaflux.generators import registry, synthesize
    from dermaflux.generators.protocol import Collection

    folder, output = workspace.root / f"{name}-weights", workspace.root / f"{name}-pool"
    CASES[name].write_weights(workspace, folder)
    settings, generator = CASES[name].sampling(folder), registry.generator(name)
    with _on_one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.delenv("DVC_ROOT", raising=False)
        patch.chdir(workspace.root)
        if isinstance(generator, Collection):
            generator.collect(POOL, settings, output, workspace.root / f"{name}-counts")
        else:
            section = POOL.model_copy(update={name: settings})
            synthesize.synthesize(
                name, section, 7, workspace.corpus, workspace.captions, workspace.models(folder),
                output, Silent(),
            )  # fmt: skip
    return Pool(output, folder)


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace as working directory, so that checkpoints stay inside it."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(workspace.root)
    return workspace
