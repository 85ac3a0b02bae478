"""What goes wrong with the machine is one sentence; what goes wrong in the program a traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dermaflux.errors import InputError, one_line, sentence_for

WRITERS = """
import os, sys
from pathlib import Path
root = Path(sys.argv[1])
os.chdir(root)
import numpy as np, pandas as pd, torch
from PIL import Image
from dermaflux.captions.vlm.answer_cache import AnswerCache
from dermaflux.captions.vlm.client import Request, Response
from dermaflux.core import checkpoints, files, table
from dermaflux.core.tensor_cache import TensorCache
from dermaflux.errors import sentence_for

noise = os.urandom(60_000)
def text(): files.write_json(root / "a.json", noise.hex() * 5)
def parquet():
    rows = [{"image": {"bytes": os.urandom(60_000)}, "split": "train", "image_id": str(i)}
            for i in range(9)]
    table.write(rows, root / "corpus", 64)
def shard(): table.write_shard([{"image": {"bytes": os.urandom(400_000)}}], root / "s.parquet")
def state():
    checkpoints.Checkpoint(root).save({"x": torch.rand(300_000)})
def tensors():
    with TensorCache(root / "cache").writer() as writer:
        writer.add(b"k" * 32, {"x": torch.rand(300_000)})
def answers():
    cache = AnswerCache(root / "answers.sqlite", "m", {})
    for i in range(40):
        request = Request("p", b"", str(i))
        cache.add(request, Response(os.urandom(20_000).hex(), 1, 1, "stop"))
def frame(): pd.DataFrame({"x": np.random.rand(40_000)}).to_csv(root / "a.csv")
def picture():
    Image.fromarray(np.random.randint(0, 255, (400, 400, 3), np.uint8)).save(root / "a.png")

for write in (text, parquet, shard, state, tensors, answers, frame, picture):
    try:
        write()
        print(write.__name__, "| wrote all of it")
    except Exception as error:
        print(write.__name__, "|", sentence_for(error) or repr(error))
    for path in sorted(root.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
"""


def test_every_writer_tells_of_a_full_disk_in_one_sentence(tmp_path: Path) -> None:
    mounted = "mount -t tmpfs -o size=256k none $1"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mounted, "-", tmp_path]).returncode:
        pytest.skip("this machine mounts no file system for a test")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mounted} && exec "$2" -c "$3" $1', "-", tmp_path]
        + [sys.executable, WRITERS],
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if " | " in line]
    assert len(lines) == 8, done.stderr
    for line in lines:
        assert "is full or its quota is used up" in line, line
        assert "free some space and run the same command again" in line


def raised(number: int, name: str | None) -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (raised(errno.EACCES, "/data/x"), "'/data/x' cannot be used: this user may not read"),
        (raised(errno.EROFS, "out.onnx"), "mounted read-only"),
        (raised(errno.EISDIR, "a\x1b[2J\n"), r"'a\x1b[2J\n' cannot be used: it is a folder"),
        (raised(errno.ENAMETOOLONG, "x" * 5000), "longer than its disk can store"),
        (raised(errno.EMFILE, None), "ulimit -n"),
        (raised(errno.ENOENT, "corpus/a.parquet"), "is missing; run `dvc repro`"),
        (InputError("a\x1b]0;x\x07" + "b" * 5000), r"a\x1b]0;x\x07"),
    ],
)
def test_faults_of_the_machine_are_one_printable_sentence(error: Exception, expected: str) -> None:
    sentence = sentence_for(error)
    assert sentence is not None
    assert expected in sentence
    assert sentence.isprintable()
    assert len(sentence) <= 1000


@pytest.mark.parametrize(
    "error",
    [raised(errno.ENOENT, "/nowhere/of/ours"), ValueError("x"), KeyError("image"), OSError("odd")],
)
def test_faults_of_the_program_keep_their_traceback(error: Exception) -> None:
    assert sentence_for(error) is None


def test_an_argument_names_a_file_or_its_folder_and_no_part_of_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["dermaflux", "train", "--seed", "1", "photos"])
    assert sentence_for(raised(errno.ENOENT, "/ours/vit-1/state.pt")) is None
    assert "does not exist" in str(sentence_for(raised(errno.ENOENT, "photos/a.jpg")))


def test_one_line_keeps_both_ends_and_no_control_characters() -> None:
    assert one_line("a\n\tb") == "a b"
    assert one_line("\x00" * 500, 100).isprintable()
    assert len(one_line("\x00" * 500, 100)) <= 100
    assert one_line("a" * 90 + "z" * 90, 100).startswith("aaa")
    assert one_line("a" * 90 + "z" * 90, 100).endswith("zzz")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dermaflux", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_that_may_not_write_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "phantom").write_text("a file where the folder should be")
    done = run(tmp_path, "phantom", "phantom/new")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "dermaflux: 'phantom/.new.partial' cannot be used: a part of the path is a file and a "
        "folder is needed; correct the path"
    ]


def test_an_interrupted_command_ends_with_130_and_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dermaflux", "phantom", "data"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / ".data.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert text.splitlines() == ["dermaflux: interrupted"]
