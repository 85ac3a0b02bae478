"""Every identity that keys a cache or a provenance changes with the revision, branches included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from toy_corpus import TINY

from dermaflux.captions.vlm import loading
from dermaflux.captions.vlm.open import model_name
from dermaflux.captions.vlm.transformers_vlm import TransformersVLM
from dermaflux.classifiers.model import pretrained
from dermaflux.classifiers.zero_shot import image_text
from dermaflux.core import hub
from dermaflux.errors import InputError
from dermaflux.generators import backbone
from dermaflux.generators.data import autoencoder
from dermaflux.generators.flux_lora.files import imported
from dermaflux.generators.flux_lora.model import pipeline
from dermaflux.params import Backbone, Caption, Model

REPOSITORY = "team/model"
COMMITS = {"a" * 40: "before", "b" * 40: "after"}
FILES = [
    "config.json", "model_index.json", "open_clip_config.json", "open_clip_pytorch_model.bin",
    "model.safetensors", "pytorch_lora_weights.safetensors",
]  # fmt: skip


class Cache:
    """The hub's cache as its client lays it out: a snapshot per commit, `main` at one of them."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "models--team--model"
        for commit, word in COMMITS.items():
            snapshot = self._folder / "snapshots" / commit
            snapshot.mkdir(parents=True)
            for name in FILES:
                content = json.dumps({"word": word}).encode()
                if name.endswith(".safetensors"):
                    header = json.dumps({"__metadata__": {"word": word}}).encode()
                    content = len(header).to_bytes(8, "little") + header
                (snapshot / name).write_bytes(content)
        (self._folder / "refs").mkdir()

    def move(self, commit: str) -> None:
        """Let the branch point at a commit."""
        (self._folder / "refs" / "main").write_text(commit)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        huggingface_hub, "list_repo_files", lambda *_, **__: ["pytorch_lora_weights.safetensors"]
    )
    monkeypatch.chdir(tmp_path)
    return Cache(tmp_path / "hub")


def _captioner(revision: str) -> str:
    return TransformersVLM(REPOSITORY, revision).name


def _answers(revision: str) -> str:
    return model_name(Caption(captioner="llama", model=REPOSITORY, revision=revision))


def _backbone(revision: str) -> str:
    backbone.pin(Backbone(repository=REPOSITORY, revision=revision), Path("backbone"))
    return pipeline.reference(Path("backbone")).identity


def _decoder(revision: str) -> str:
    return autoencoder.reference(REPOSITORY, revision, Path("none"), "latent_ddpm").identity


def _decoder_of_backbone(revision: str) -> str:
    backbone.pin(Backbone(repository=REPOSITORY, revision=revision), Path("backbone"))
    return autoencoder.reference("backbone", None, Path("backbone"), "latent_ddpm").identity


def _lora(revision: str) -> str:
    return imported._locate(REPOSITORY, revision)[1]


def _zero_shot(revision: str) -> str:
    pytest.importorskip("open_clip")
    return image_text.find("one", f"hf-hub:{REPOSITORY}@{revision}").identity


def _start_of_training(revision: str) -> str:
    name = f"hf-hub:{REPOSITORY}@{revision}"
    snapshot = Path(constants.HF_HUB_CACHE, "models--team--model", "snapshots")
    config = {"architecture": TINY["vit"]["name"], "pretrained_cfg": {}}
    for folder in snapshot.iterdir():
        (folder / "config.json").write_text(json.dumps(config))
    model = Model(name=name, pretrained=True, learning_rate=1e-3)
    return str(pretrained.digest(pretrained.locate(model)))


IDENTITIES: list[Callable[[str], str]] = [
    _captioner, _answers, _backbone, _decoder, _decoder_of_backbone, _lora, _zero_shot,
    _start_of_training,
]  # fmt: skip
"""Of captions, of cached answers, of the generator's parts, and of what classifiers start from."""
NAMED_BY_COMMIT = IDENTITIES[:-1]
"""The last is a hash of the file."""


@pytest.mark.parametrize("identity", IDENTITIES)
def test_an_identity_changes_with_the_revision(
    identity: Callable[[str], str], cache: Cache
) -> None:
    first, second = COMMITS
    named = {commit: identity(commit) for commit in COMMITS}
    assert named[first] != named[second]
    cache.move(first)
    before = identity("main")
    cache.move(second)
    assert [before, identity("main")] == list(named.values())
    if identity in NAMED_BY_COMMIT:
        assert all(commit in name for commit, name in named.items())


def test_an_endpoints_answers_are_kept_apart_by_what_the_parameters_name() -> None:
    def name(revision: str | None) -> str:
        return model_name(Caption(captioner="llama", route="endpoint", revision=revision))

    assert len({name(None), name("one"), name("two")}) == 3


def test_a_hub_id_without_revision_is_refused(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"caption\.model 'team/model' .* no caption\.revision"):
        loading.commit(REPOSITORY, None)
    unpinned = Caption(captioner="llama", model=REPOSITORY)
    with pytest.raises(ValueError, match=r"pin the commit to use, as its page on the hub shows"):
        unpinned.check_pinned(tmp_path)
    for accepted in ({"captioner": "measured"}, {"route": "endpoint"}, {"model": "hub"}):
        unpinned.model_copy(update=accepted).check_pinned(tmp_path)


def test_a_branch_that_cannot_be_looked_up_is_one_sentence(cache: Cache) -> None:
    with pytest.raises(InputError, match=r"^parameter team/model cannot be opened .*; wait$"):
        hub.commit("parameter", REPOSITORY, "gone", "config.json", "wait")
