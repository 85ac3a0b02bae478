"""Pushing to a loopback imitation of the hub, by the hub's own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import finished_stages
import hub_server
import pytest

from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.sharing import package, upload


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Hub]:
    from huggingface_hub import constants, hf_api

    hub = hub_server.Hub()
    with hub_server.serving(hub) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(hf_api.constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield hub


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", ["corpus", "pool", "lora"])
def test_what_arrives_is_the_package(
    finished: Params, hub: hub_server.Hub, name: str, tmp_path: Path
) -> None:
    upload.run(finished, name, "us/x")
    repository = hub.repositories["us/x"]
    package.run(finished, name, tmp_path / "expected")
    expected = contents(tmp_path / "expected")
    assert repository.private
    assert repository.kind == package.PACKAGES[name].kind
    assert len(repository.commits) == 1
    arrived = {path: data for path, data in repository.files.items() if path != "croissant.json"}
    assert arrived == {path: expected[path] for path in expected if path != "croissant.json"}
    assert "croissant.json" in repository.files or name == "lora"
    assert hub.validated == [expected["README.md"].decode()]  # before anything was uploaded
    assert not list(Path(".dermaflux/packages").iterdir())


def test_shards_of_an_earlier_push_are_gone_after_the_next(
    finished: Params, hub: hub_server.Hub
) -> None:
    upload.run(finished, "corpus", "us/x")
    hub.repositories["us/x"].files["data/train-00000-of-00009.parquet"] = b"old"
    upload.run(finished, "corpus", "us/x")
    shards = [path.name for path in table.shards(Path("corpus"))]
    stored = [name.split("/")[1] for name in hub.repositories["us/x"].files if "data/" in name]
    assert sorted(stored) == sorted(shards)


def test_nothing_leaves_that_licences_keep(finished: Params, hub: hub_server.Hub) -> None:
    finished_stages.corpus("research-only")
    with pytest.raises(InputError, match=r"10 of licence research-only.*leave --public out"):
        upload.run(finished, "corpus", "us/x", public=True)
    assert not hub.repositories
    finished_stages.corpus("CC-BY")
    upload.run(finished, "corpus", "us/x", public=True)
    assert not hub.repositories["us/x"].private
    # A private push into a public repository would publish, the other way round would mislead.
    for name, public in (("us/x", False), ("us/y", True)):
        hub.repositories["us/y"] = hub_server.Repository("dataset", private=True)
        before = dict(hub.repositories[name].files)
        with pytest.raises(InputError, match=f"{name} is already there and"):
            upload.run(finished, "pool", name, public=public)
        assert hub.repositories[name].files == before


def test_what_the_hub_refuses_is_one_sentence(
    finished: Params, hub: hub_server.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="write it as OWNER/NAME"):
        upload.run(finished, "corpus", "no-owner")
    for status, fix in ((403, "hf auth login"), (500, "check the network")):
        hub.status = status
        with pytest.raises(InputError, match=rf"HTTP {status}\); .*{fix}"):
            upload.run(finished, "lora", "us/x")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(InputError, match="there is no login"):
        upload.run(finished, "corpus", "us/x")
