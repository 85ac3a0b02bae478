from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drawn_adapter import draw_generator
from small_generator import Workspace

from dermaflux.captions.text.prompt_bank import PromptBank
from dermaflux.core import table
from dermaflux.errors import InputError
from dermaflux.generators import reproduce, synthesize
from dermaflux.generators.flux_lora.model import lora
from dermaflux.generators.pool import plan
from dermaflux.params import Synthesize
from dermaflux.tracking.runs import Silent

SECTION = Synthesize(images=10, steps=3, guidance=3.5, scale=128, batch=2, shard_images=4)


@pytest.fixture(scope="module")
def generator(workspace: Workspace) -> Path:
    return draw_generator(workspace.backbone, workspace.root / "generator")


@pytest.fixture(scope="module")
def whole(workspace: Workspace, generator: Path) -> Path:
    """The pool of `SECTION`, made by one process without a break, on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DVC_ROOT", raising=False)
        patch.chdir(workspace.root)
        output = workspace.root / "whole"
        synthesize.synthesize(SECTION, 7, *workspace.inputs(), generator, output, Silent())
    torch.set_num_threads(threads)
    return output


class _Stop(Silent):
    def metrics(self, values, step):  # type: ignore[no-untyped-def]
        if step == 3:
            raise KeyboardInterrupt


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pool_resumes_to_the_same_bytes(here: Workspace, generator: Path, whole: Path) -> None:
    def pool(log: Silent) -> Path:
        output = here.root / "resumed"
        synthesize.synthesize(SECTION, 7, *here.inputs(), generator, output, log)
        return output

    with pytest.raises(KeyboardInterrupt):
        pool(_Stop())
    assert not (here.root / "resumed").exists()
    assert _files(pool(Silent())) == _files(whole)
    assert sorted(_files(whole)) == [f"train-{n:05d}-of-00003.parquet" for n in range(3)]


def test_rows_say_how_each_image_is_made_again(
    here: Workspace, generator: Path, whole: Path
) -> None:
    rows = table.metadata(whole)
    assert rows["image_id"].tolist() == [f"synthetic/{n:06d}" for n in range(10)]
    assert rows["label"].tolist() == ["benign", "malignant"] * 5
    assert rows["sha256"].nunique() == rows["seed"].nunique() == 10
    assert set(rows["base_dtype"]) == {"fp32"}
    assert set(rows["text_policy"]) == {"trim"}
    for row in rows.itertuples():
        assert f"{row.label} lesion" in row.prompt
    for image_id in ("synthetic/000002", "synthetic/000009"):
        made, kept = reproduce.remake(image_id, whole, here.backbone, generator)
        assert (made == kept).all()
        assert ((kept > 0) & (kept < 255)).mean() > 0.5  # else pixels could not show a difference
    shared = rows[rows["batch"].duplicated(keep=False)]["image_id"].iloc[0]
    made, kept = reproduce.remake(shared, whole, here.backbone, generator, alone=True)
    assert np.abs(made.astype(int) - kept.astype(int)).max() <= 1


_SCRIPT = """
import json, sys
from pathlib import Path
from dermaflux.errors import InputError
from dermaflux.generators import synthesize
from dermaflux.params import Synthesize
from dermaflux.tracking.runs import Silent
from dermaflux.training import distributed

section, folders, fail = json.loads(sys.argv[1])
team = distributed.join()
if fail and team.rank == 1:
    class Failing(Silent):
        def metrics(self, values, step):
            raise InputError("no luck")
    log = Failing()
else:
    log = Silent()
synthesize.synthesize(Synthesize(**section), 7, *map(Path, folders), log, team)
"""


def _launch(
    here: Workspace, generator: Path, output: Path, fail: bool = False
) -> subprocess.Popen[str]:
    script = here.root / "sample_together.py"
    script.write_text(_SCRIPT)
    folders = [str(path) for path in (*here.inputs(), generator, output)]
    # `--cpu` would start one process only: `--multi_gpu` is what starts several, on CPUs as well.
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    how = [*launcher, "--num_processes", "2", "--main_process_port", "0"]
    import dermaflux

    source = str(Path(dermaflux.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    return subprocess.Popen(
        [sys.executable, *how, str(script),
         json.dumps([SECTION.model_dump(), folders, fail])],
        cwd=here.root, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _parts(here: Workspace) -> int:
    root = here.root / ".dermaflux" / "checkpoints" / "synthesize"
    return len([*root.glob("*/shard-*.parquet"), *root.glob("*/batch-*/state.pt")])


@pytest.mark.slow
def test_two_processes_write_what_one_writes_and_a_killed_run_goes_on(
    here: Workspace, generator: Path, whole: Path
) -> None:
    together = here.root / "together"
    killed = _launch(here, generator, together)
    end = time.monotonic() + 300
    while not _parts(here):
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert _parts(here)
    assert not together.exists()
    done = _launch(here, generator, together)
    said = done.communicate(timeout=300)[0]
    assert done.returncode == 0, said
    assert "of process 2 of 2" in said
    assert "minutes left" in said
    assert _files(together) == _files(whole)
    assert _parts(here) == 0


@pytest.mark.slow
def test_one_failing_process_ends_all(here: Workspace, generator: Path) -> None:
    output = here.root / "failed"
    done = _launch(here, generator, output, fail=True)
    said = done.communicate(timeout=300)[0]
    assert done.returncode != 0
    assert "no luck" in said
    assert not output.exists()


def test_shards_hold_consecutive_images_in_batches_of_one_length() -> None:
    lengths = [32, 16, 32, 16, 32, 16, 48]
    shards = plan.shards(lengths, 5, 2)
    assert [shard.members for shard in shards] == [range(5), range(5, 7)]
    assert [batch.members for shard in shards for batch in shard.batches] == [
        (1, 3), (0, 2), (4,), (5,), (6,),
    ]  # fmt: skip
    assert [batch.number for shard in shards for batch in shard.batches] == list(range(5))


def test_images_do_not_depend_on_the_size_of_the_pool() -> None:
    bank = PromptBank({"benign": ("a", "b", "c"), "malignant": ("d", "e")})
    assert plan.plan(4, bank, 1) == plan.plan(8, bank, 1)[:4]
    assert plan.plan(4, bank, 1) != plan.plan(4, bank, 2)
    assert all(0 <= one.seed < 2**63 for one in plan.plan(100, bank, 0))


def test_missing_or_other_weights_are_refused(
    here: Workspace, generator: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="run the stage `finetune`"):
        synthesize.read_weights(tmp_path, here.backbone)
    output = here.root / "small"
    section = SECTION.model_copy(update={"images": 2, "steps": 1, "bank": "label"})
    synthesize.synthesize(section, 0, *here.inputs(), generator, output, Silent())
    with pytest.raises(InputError, match="is not in"):
        reproduce.remake("synthetic/000009", output, here.backbone, generator)
    kept = (generator / lora.WEIGHTS).read_bytes()
    try:
        (generator / lora.WEIGHTS).write_bytes(kept[:-4] + b"\0\0\1\0")
        with pytest.raises(InputError, match="was made with weights"):
            reproduce.remake("synthetic/000000", output, here.backbone, generator)
    finally:
        (generator / lora.WEIGHTS).write_bytes(kept)
