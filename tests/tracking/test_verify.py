"""`dermaflux verify`: flipped bytes and missing objects, in a DVC remote that is a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.exceptions import CheckoutError
from dvc.repo import Repo

from dermaflux.errors import InputError
from dermaflux.tracking import verify

BYTES = {"weights.bin": b"weights" * 40, "facts.json": b"{}"}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose folder `models` is in the cache and in the remote `team`."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    root = tmp_path / "clone"
    (root / "models").mkdir(parents=True)
    monkeypatch.chdir(root)
    for name, content in BYTES.items():
        (root / "models" / name).write_bytes(content)
    Repo.init(no_scm=True).close()
    configure(url=str(tmp_path / "remote"))
    with Repo() as repository:
        repository.add("models")
        assert repository.push() == 3
    return root


def configure(**options: Any) -> None:
    with Repo() as repository, repository.config.edit("repo") as config:
        config.setdefault("remote", {}).setdefault("team", {}).update(options)
        config["core"]["remote"] = "team"


def stored(clone: Path, name: str) -> Path:
    """Object of a file in the remote: the one that has its bytes."""
    objects = (path for path in (clone.parent / "remote").rglob("*") if path.is_file())
    return next(path for path in objects if path.read_bytes() == BYTES[name])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content)
    # DVC hashes objects of a folder that anyone may write, and no others.
    path.chmod(mode)


def pull_anew(clone: Path) -> None:
    """As in another clone: without workspace and cache."""
    shutil.rmtree(clone / "models", ignore_errors=True)
    shutil.rmtree(clone / ".dvc" / "cache")
    with Repo() as repository:
        repository.pull()


def here(*paths: str) -> None:
    verify.run([Path(path) for path in paths], None, read=False, repair=False)


def there(*, read: bool = False, repair: bool = False) -> None:
    verify.run([], "team", read=read, repair=repair)


def test_a_flipped_byte_is_refused_by_the_remote_that_verifies_and_found_after_one_that_does_not(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here()
    assert "2 files have the bytes" in capsys.readouterr().out
    flip(stored(clone, "weights.bin"))

    pull_anew(clone)  # accepted
    with pytest.raises(InputError, match="1 of 2 files are not as dvc.lock says"):
        here()
    said = capsys.readouterr().out
    assert "models/weights.bin has other bytes" in said
    assert "damaged" in said
    here("models/facts.json")

    configure(verify=True)
    with pytest.raises(CheckoutError):
        pull_anew(clone)
    assert not (clone / "models" / "weights.bin").exists()


def test_an_edited_file_is_told_from_a_damaged_one(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clone / "models" / "facts.json").unlink()
    (clone / "models" / "facts.json").write_bytes(b"[]")
    with pytest.raises(InputError, match="1 of 2"):
        here()
    assert "dvc checkout --force models" in capsys.readouterr().out


def test_what_the_remote_lacks_comes_back_from_a_cache_though_dvc_push_says_nothing_is_missing(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost, flipped = stored(clone, "facts.json"), stored(clone, "weights.bin")
    lost.unlink()
    flip(flipped)
    with Repo() as repository:
        assert repository.push() == 0
    with pytest.raises(InputError, match="1 of 3 objects are not whole in the remote team"):
        there()
    with pytest.raises(InputError, match="2 of 3 objects"):
        there(read=True)
    there(read=True, repair=True)
    assert "2 were uploaded" in capsys.readouterr().out
    assert lost.read_bytes() == BYTES["facts.json"]
    assert flipped.read_bytes() == BYTES["weights.bin"]

    shutil.rmtree(clone / ".dvc" / "cache" / "files" / "md5" / lost.parent.name)
    lost.unlink()
    with pytest.raises(InputError, match="1 of 3 objects"):
        there(repair=True)
    shutil.rmtree(clone / ".dvc" / "cache")  # a fresh clone knows no list of a folder's files
    with pytest.raises(InputError, match="1 of 3 objects"):
        there()


def test_bad_names_are_one_sentence(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is no output that dvc.lock knows"):
        here("nothing")
    with pytest.raises(InputError, match="give --remote"):
        verify.run([], None, read=True, repair=False)
    with pytest.raises(InputError, match="dvc remote list"):
        verify.run([], "lab", read=False, repair=False)
    shutil.rmtree(tmp_path / "remote")
    (tmp_path / "remote").write_bytes(b"")
    with pytest.raises(InputError, match="the remote team cannot be used .*dvc remote modify team"):
        there(repair=True)
