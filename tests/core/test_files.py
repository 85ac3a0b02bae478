"""Files and folders appear whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dermaflux.core.files import atomic_folder, read_json, write_json, write_text
from dermaflux.errors import InputError


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "output"
    for number in (1, 2):
        with atomic_folder(folder) as partial:
            assert list(partial.iterdir()) == []
            (partial / f"{number}.txt").write_text(str(number))
            # Until the end, the folder is what it was.
            assert contents(folder) == ({} if number == 1 else {"1.txt": "1"})
    assert contents(folder) == {"2.txt": "2"}
    assert [path.name for path in folder.parent.iterdir()] == ["output"]


def test_a_failure_keeps_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    with atomic_folder(folder) as partial:
        (partial / "old.txt").write_text("old")

    def fail() -> None:
        with atomic_folder(folder) as partial:
            (partial / "new.txt").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert contents(tmp_path) == {"output/old.txt": "old"}


KILLED = """
import os, signal, sys
from pathlib import Path
from dermaflux.core import files
root = Path(sys.argv[1])
if sys.argv[2] == "folder":
    with files.atomic_folder(root / "output") as partial:
        (partial / "new.txt").write_text("new")
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write_text(root / "output" / "old.txt", "half of what was to be written")
"""


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_killed_process_leaves_the_old_output_and_the_next_one_starts_clean(
    tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "output"
    write_text(folder / "old.txt", "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), what], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (folder / "old.txt").read_text() == "old"
    with atomic_folder(folder) as partial:
        assert os.listdir(partial) == []
    assert contents(tmp_path) == {}


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1.5, None], "a": "Färbung"})
    write_json(tmp_path / "new" / "b.json", {"a": "Färbung", "b": [1.5, None]})
    text = (tmp_path / "a.json").read_bytes()
    assert text == (tmp_path / "new" / "b.json").read_bytes()
    assert text.endswith(b"}\n")
    assert "Färbung".encode() in text
    assert json.loads(text) == {"a": "Färbung", "b": [1.5, None]}
    assert contents(tmp_path).keys() == {"a.json", "new/b.json"}


def test_a_damaged_json_file_is_one_sentence_with_the_stage_that_writes_it(tmp_path):
    path = tmp_path / "audit.json"
    for content in (b"", b'{"a": ', b"\xff\xfe\x00", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"audit.json is damaged .*run audit, which writes it"):
            read_json(path, "audit")
    with pytest.raises(InputError, match="is missing; run audit"):
        read_json(tmp_path / "none.json", "audit")
