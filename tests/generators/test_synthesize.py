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
from drawn_selector import Noise
from generator_cases import CASES, POOL
from small_generator import Workspace

from dermaflux.captions.text.prompt_bank import Prompt, PromptBank
from dermaflux.core import table
from dermaflux.core.seeds import derived_seed
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError
from dermaflux.generators import registry, reproduce, synthesize
from dermaflux.generators.pool import plan, prompts
from dermaflux.generators.protocol import Condition, Models
from dermaflux.tracking.runs import Silent

COUNTS = {"benign": 8061, "malignant": 1954}
COUNTS_HAM = {
    "actinic keratosis": 327, "basal cell carcinoma": 514, "benign keratosis": 1099,
    "dermatofibroma": 115, "melanoma": 1113, "nevus": 6705, "vascular lesion": 142,
}  # fmt: skip
NAME = "flux_lora"
SECTION = POOL.model_copy(update={NAME: CASES[NAME].sampling(Path())})


class _Stop(Silent):
    def metrics(self, values, step):  # type: ignore[no-untyped-def]
        if step == 3:
            raise KeyboardInterrupt


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("one_thread")
def test_pool_resumes_to_the_same_bytes(here: Workspace, pools) -> None:  # type: ignore[no-untyped-def]
    whole = pools(NAME)

    def pool(log: Silent) -> Path:
        output, models = here.root / "resumed", here.models(whole.generator)
        synthesize.synthesize(NAME, SECTION, 7, here.corpus, here.captions, models, output, log)
        return output

    with pytest.raises(KeyboardInterrupt):
        pool(_Stop())
    assert not (here.root / "resumed").exists()
    assert _files(pool(Silent())) == _files(whole.folder)
    assert sorted(_files(whole.folder)) == [f"train-{n:05d}-of-00003.parquet" for n in range(3)]


_SCRIPT = """
import json, sys
from pathlib import Path
from dermaflux.errors import InputError
from dermaflux.generators import synthesize
from dermaflux.generators.protocol import Models
from dermaflux.params import Synthesize
from dermaflux.tracking.runs import Silent
from dermaflux.core import distributed

section, folders, fail = json.loads(sys.argv[1])
corpus, captions, backbone, generator, output = map(Path, folders)
processes = distributed.join()
if fail and processes.rank == 1:
    class Failing(Silent):
        def metrics(self, values, step):
            raise InputError("no luck")
    log = Failing()
else:
    log = Silent()
synthesize.synthesize("flux_lora", Synthesize(**section), 7, corpus, captions,
                      Models(generator, backbone), output, log, processes)
"""


def _launch(
    here: Workspace, generator: Path, output: Path, fail: bool = False
) -> subprocess.Popen[str]:
    script = here.root / "sample_together.py"
    script.write_text(_SCRIPT)
    folders = [str(path) for path in (here.corpus, here.captions, here.backbone, generator, output)]
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
    here: Workspace,
    pools,  # type: ignore[no-untyped-def]
) -> None:
    whole, generator = pools(NAME).folder, pools(NAME).generator
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
    printed = done.communicate(timeout=300)[0]
    assert done.returncode == 0, printed
    assert "of process 2 of 2" in printed
    assert "minutes left" in printed
    assert _files(together) == _files(whole)
    assert _parts(here) == 0


@pytest.mark.slow
def test_one_failing_process_ends_all(here: Workspace, pools) -> None:  # type: ignore[no-untyped-def]
    output = here.root / "failed"
    done = _launch(here, pools(NAME).generator, output, fail=True)
    printed = done.communicate(timeout=300)[0]
    assert done.returncode != 0
    assert "no luck" in printed
    assert not output.exists()


def test_shards_hold_consecutive_images_in_batches_of_one_length() -> None:
    lengths = [32, 16, 32, 16, 32, 16, 48]
    shards = plan.shards([(128, length) for length in lengths], 5, 2)
    assert [shard.members for shard in shards] == [range(5), range(5, 7)]
    assert [batch.members for shard in shards for batch in shard.batches] == [
        (1, 3), (0, 2), (4,), (5,), (6,),
    ]  # fmt: skip
    assert [batch.number for shard in shards for batch in shard.batches] == list(range(5))


def test_images_do_not_depend_on_the_size_of_the_pool() -> None:
    bank = PromptBank({name: tuple(Prompt(text, name) for text in "abc") for name in CLASSES})
    for shares in (plan.shares("balanced", COUNTS), plan.shares("natural", COUNTS)):
        small, large, other = (
            plan.plan(images, bank, shares, 128, seed) for images, seed in ((4, 1), (8, 1), (4, 2))
        )
        assert small == large[:4]
        assert small != other
        assert all(0 <= image.condition.seed < 2**63 for image in large)


def test_a_balanced_plan_of_labels_is_the_one_that_was_made_before_proportions() -> None:
    """Classes alternate, and image i's prompt is number hash(seed, i) of its class."""
    bank = PromptBank({name: tuple(Prompt(text, name) for text in "abcde") for name in CLASSES})
    planned = plan.plan(5000, bank, plan.shares("balanced", COUNTS), 128, 7)
    for index, image in enumerate(planned):
        name = ("benign", "malignant")[index % 2]
        text = "abcde"[derived_seed(7, "prompt", index) % 5]
        seed = derived_seed(7, index)
        assert image.condition == Condition(name, text, 128, seed, None)


@pytest.mark.parametrize(
    ("proportions", "expected"),
    [
        ("balanced", dict.fromkeys(COUNTS_HAM, 1 / 7)),
        ("natural", {name: count / 10_015 for name, count in COUNTS_HAM.items()}),
        ({"nevus": 0.67, "melanoma": 0.33}, {"nevus": 0.67, "melanoma": 0.33}),
    ],
)
def test_every_prefix_of_a_pool_has_the_wanted_proportions(
    proportions: str | dict[str, float], expected: dict[str, float]
) -> None:
    shares = plan.shares(proportions, COUNTS_HAM)
    assert shares == pytest.approx(expected)
    names = list(plan.classes(shares, 3000))
    counts = np.cumsum([[name == other for other in shares] for name in names], axis=0)
    wanted = np.outer(np.arange(1, 3001), list(shares.values()))
    assert np.abs(counts - wanted).max() <= 1
    if proportions == "balanced":
        assert names[:14] == [*COUNTS_HAM] * 2


def test_a_class_without_training_images_is_refused_with_close_names() -> None:
    with pytest.raises(
        InputError, match="'Melanom' .* 0 images of it; write melanoma, or add such"
    ):
        plan.shares({"nevus": 0.5, "Melanom": 0.5}, COUNTS_HAM)
    with pytest.raises(InputError, match="'malignant' .*; leave it out, or add such"):
        plan.shares("balanced", {"benign": 3, "malignant": 0})
    with pytest.raises(InputError, match="needs training images with a diagnosis"):
        plan.shares("natural", {})


@pytest.mark.parametrize(
    ("conditions", "proportions", "classes"),
    [
        ("diagnosis", "natural", {"melanoma": 2, "nevus": 6}),
        ("diagnosis", {"melanoma": 0.75, "nevus": 0.25}, {"melanoma": 6, "nevus": 2}),
        ("malignancy", {"malignant": 1.0}, {"malignant": 8}),
        ("none", "balanced", {"indeterminate": 8}),
    ],
)
def test_a_pool_has_the_classes_asked_for_and_reproduces(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    conditions: str,
    proportions: str | dict[str, float],
    classes: dict[str, int],
) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = ["nevus", "nevus", "nevus", "melanoma"] * 3
    table.write(
        [
            {"image_id": f"s/{n}", "split": "train", "diagnosis": kind,
             "label": CLASSES[kind == "melanoma"]}
            for n, kind in enumerate(kinds)
        ], tmp_path / "corpus", 64,
    )  # fmt: skip
    changes = {"conditions": conditions, "proportions": proportions, "images": 8}
    section = SECTION.model_copy(update=changes)
    monkeypatch.setattr(registry, "generator", lambda name: Noise())
    output = tmp_path / "pool"
    synthesize.synthesize(
        NAME, section, 7, tmp_path / "corpus", Path(), Models(Path(), Path()), output, Silent()
    )
    rows = table.metadata(output)
    assert rows[section.column].value_counts().to_dict() == classes
    if conditions == "diagnosis":
        assert (rows["label"] == np.array(CLASSES)[(rows["diagnosis"] == "melanoma") * 1]).all()
    if conditions == "none":
        assert set(rows["prompt"]) == {""}
    again, stored = reproduce.sample_again(rows["image_id"][3], output, Models(Path(), Path()))
    assert (again == stored).all()


def test_an_unknown_image_names_the_range(here: Workspace, pools) -> None:  # type: ignore[no-untyped-def]
    pool = pools(NAME)
    with pytest.raises(InputError, match="'synthetic/000000' to 'synthetic/000009'"):
        reproduce.sample_again("synthetic/000010", pool.folder, here.models(pool.generator))


def test_prompts_come_from_captions_only_where_the_generator_needs_them(here: Workspace) -> None:
    class WithoutCaptions:
        needs = frozenset()

    def texts(generator: object) -> set[str]:
        shares = prompts.shares_for(POOL, here.corpus)
        bank = prompts.prompts_for(generator, POOL, here.corpus, here.captions, shares)  # type: ignore[arg-type]
        return {prompt.text for prompt in bank.prompts["benign"]}

    with_captions = texts(registry.generator(NAME))
    assert len(with_captions) > 1
    assert texts(WithoutCaptions()) == {"This is an image containing a benign lesion."}


def test_prompts_of_a_file_are_drawn_and_those_of_test_images_refused(here: Workspace) -> None:
    path = here.root / "mine.csv"
    path.write_text("prompt,label\nsmall,benign\nround,benign\nlarge,malignant\n")
    section = POOL.model_copy(update={"prompt_source": "file", "prompt_file": str(path)})
    generator, shares = registry.generator(NAME), prompts.shares_for(section, here.corpus)

    def planned() -> list[tuple[str, str]]:
        bank = prompts.prompts_for(generator, section, here.corpus, here.captions, shares)  # type: ignore[arg-type]
        images = plan.plan(40, bank, shares, 128, 7)
        return [(image.condition.label, image.condition.prompt) for image in images]

    before = planned()
    assert set(before) == {("benign", "small"), ("benign", "round"), ("malignant", "large")}
    path.write_text(path.read_text().replace("large", "huge"))
    assert [prompt for _, prompt in planned() if prompt == "huge"], "an edited file samples anew"
    texts = table.metadata(here.captions, ["image_id", "caption"]).set_index("image_id")["caption"]
    test, train = texts["phantom/009"], texts["phantom/000"]
    path.write_text(f'{path.read_text()}"{train}",benign\n')
    planned()
    path.write_text(f'{path.read_text()}"{test}",benign\n')
    with pytest.raises(InputError, match=r"holds 1 of 5 prompts that are captions of test"):
        planned()
