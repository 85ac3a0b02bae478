"""A checkout that was renamed, copied or mounted elsewhere finds and writes its own artefacts."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from dermaflux.errors import InputError
from dermaflux.tracking import moved_checkout, runs


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A checkout with one run, one logged model and one registered version with artefacts."""
    root = tmp_path_factory.mktemp("a checkout ä") / "REPO"
    for folder in (".dvc", "mlruns"):
        (root / folder).mkdir(parents=True)
    shutil.copy(empty_store, root / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (root / "file.txt").write_text("artefact")
        with runs.start("classifier", "run", {}, []) as run:
            run.artifact(Path("file.txt"))
        client = run.client
        logged = client.create_logged_model(run.experiment_id, "lesion", run.run_id)
        client.log_model_artifacts(logged.model_id, str(root / ".dvc"))
        client.log_model_artifact(logged.model_id, "file.txt")
        client.create_registered_model("lesion")
        client.create_model_version(
            "lesion", logged.artifact_location, run.run_id, model_id=logged.model_id
        )
    return root


def rewritten(database: Path, old: str, new: str) -> None:
    """What a move leaves: every text of the database names another root."""
    connection = sqlite3.connect(database)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    for table in tables:
        for column in connection.execute(f"PRAGMA table_info('{table}')").fetchall():
            try:
                connection.execute(
                    f'UPDATE \'{table}\' SET "{column[1]}" = replace("{column[1]}", ?, ?)',
                    (old, new),
                )
            except sqlite3.Error:
                continue
    connection.commit()
    connection.close()


def locations(database: Path) -> set[str]:
    connection = sqlite3.connect(database)
    found = set()
    for table, column in moved_checkout._LOCATIONS:
        found |= {
            value
            for (value,) in connection.execute(f"SELECT {column} FROM {table}")
            if value and "mlruns/artifacts" in value.replace("\\", "/")
        }
    connection.close()
    return found


@pytest.mark.parametrize(
    "old", ["copied", "file:///gone/REPO", "file:///C:/Users/me/REPO", "file:///workspace"]
)
def test_artefacts_are_found_and_written_in_the_checkout(
    old: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from mlflow.artifacts import download_artifacts

    root = tmp_path / "REPO 2"
    shutil.copytree(original, root)
    database = root / "mlruns" / "mlflow.db"
    if old != "copied":  # the original stays beside its copy and must not be written to
        rewritten(database, original.as_uri(), old)
    before = sorted(path for path in original.rglob("*"))
    monkeypatch.chdir(root)
    client = runs.connect()
    assert "artefact locations" in capsys.readouterr().err
    assert locations(database)
    assert all(place.startswith(root.as_uri()) for place in locations(database))
    version = client.get_model_version("lesion", "1")
    source = Path(download_artifacts(artifact_uri=f"models:/lesion/{version.version}"))
    assert (source / "file.txt").read_text() == "artefact"
    assert root in source.parents
    with runs.start("classifier", "run", {}, []) as run:
        run.artifact(Path("file.txt"))
    assert list((root / "mlruns" / "artifacts").rglob(f"{run.run_id}/artifacts/file.txt"))
    assert sorted(path for path in original.rglob("*")) == before
    runs.connect()
    assert not capsys.readouterr().err  # told once


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/old/REPO/mlruns/artifacts/a/b", "{root}/mlruns/artifacts/a/b"),
        ("file:///old/RE%20PO/mlruns/artifacts/%C3%A4", "{uri}/mlruns/artifacts/%C3%A4"),
        ("C:\\Users\\me\\mlruns\\artifacts\\a", "{root}/mlruns/artifacts/a"),
        ("{uri}/mlruns/artifacts/a", None),
        ("{link}/mlruns/artifacts/a", None),
        ("/old/mlruns/artifacts-of-others/a", None),
        ("models:/m-1", None),
        ("mlflow-artifacts:/mlruns/artifacts/a", None),
        ("s3://bucket/mlruns/artifacts/a", None),
    ],
)
def test_only_local_locations_of_another_root_are_moved(
    location: str, expected: str | None, tmp_path: Path
) -> None:
    root, link = tmp_path / "root", tmp_path / "link"
    root.mkdir()
    link.symlink_to(root)
    names = {"root": root, "uri": root.as_uri(), "link": link}
    moved = moved_checkout.moved(location.format(**names), root, keep_readable=False)
    assert moved == (expected and expected.format(**names))


def test_artefacts_that_stayed_behind_are_read_where_they_are(tmp_path: Path) -> None:
    old = tmp_path / "old" / "mlruns" / "artifacts" / "a"
    old.mkdir(parents=True)
    root = tmp_path / "new"
    root.mkdir()
    assert moved_checkout.moved(str(old), root, keep_readable=True) is None
    assert moved_checkout.moved(str(old), root, keep_readable=False) is not None


@pytest.mark.parametrize(
    "content",
    [b"no database at all " * 100, b"SQLite format 3\0" + b"\0" * 84],
    ids=["other file", "damaged"],
)
def test_a_damaged_database_is_one_sentence(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".dvc", "mlruns"):
        (tmp_path / name).mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(content)
    with pytest.raises(InputError, match=r"mlflow.db cannot be (read|used).*move it away"):
        runs.connect()
