"""The examples of CONTRIBUTING.md, built and run in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
COPIED = ("src", "tests", "profiles", "backbones", "params.yaml", "dvc.yaml", "pyproject.toml")
SECTIONS = ("Add a dataset adapter", "Add a generator", "Add a classifier recipe")


def section(title: str) -> str:
    """The text below a heading of the page."""
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    assert match, title
    return match[1]


class Checkout:
    """A copy of the repository, and what a contributor does in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                )
            else:
                shutil.copy(source, root / name)
        for name in (".dvc", "mlruns"):
            (root / name).mkdir()

    def follow(self, title: str, leave_out: tuple[str, ...] = ("mypy ",)) -> str:
        """Do what a section says, block by block; return what its commands print.

        Files begin with their path, diffs are applied, commands are run but for those that
        begin with a word to leave out: mypy looks at all sections in a test of its own.
        """
        output = ""
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```", section(title), re.M | re.S):
            if language == "sh":
                lines = [line for line in code.splitlines() if not line.startswith(leave_out)]
                output += self.run("\n".join(["set -e", *lines]))
            elif language == "diff":
                command = ["git", "apply", "--unidiff-zero", "-"]
                subprocess.run(command, input=code, text=True, cwd=self.root, check=True)
            elif language == "python":
                first, content = code.split("\n", 1)
                file = self.root / first.removeprefix("# ")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content)
        return output

    def run(self, command: str) -> str:
        """Run a script as in an activated environment with this copy installed."""
        binaries = Path(sys.executable).parent
        environment = os.environ | {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.root / 'src'}:{self.root / 'tests' / 'fixtures'}",
        }
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def set(self, old: str, new: str) -> None:
        """Change a line of params.yaml."""
        path = self.root / "params.yaml"
        text = path.read_text()
        assert text.count(old) == 1, old
        path.write_text(text.replace(old, new))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.slow
def test_mypy_accepts_the_examples(checkout: Checkout) -> None:
    """All at once: each time mypy reads a changed project it takes half a minute."""
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", checkout.root / ".mypy_cache")
    looked_at = []
    for title in SECTIONS:
        checkout.follow(title, ("mypy ", "ruff ", "python ", "dermaflux "))
        (command,) = re.findall(r"^mypy (.+)$", section(title), re.M)
        looked_at += command.split()
    assert all((checkout.root / path).exists() for path in looked_at)
    checkout.run(f"mypy {' '.join(looked_at)}")


@pytest.mark.slow
def test_the_adapter_example_is_listed_tested_and_ingested(checkout: Checkout) -> None:
    assert "Example Lesions" in checkout.follow("Add a dataset adapter")

    folder = checkout.root / "lesions" / "example"
    (folder / "images").mkdir(parents=True)
    lines = ["image,dx,patient"]
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        image = Image.fromarray(pixels).resize((160, 160), Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"{number}.jpg")
        lines.append(f"{number},{('nevus', 'melanoma', 'unsure')[number % 3]},{number}")
    (folder / "labels.csv").write_text("\n".join(lines))
    checkout.set("data: data ", "data: lesions ")
    checkout.run("dermaflux ingest")
    count = (
        "import dermaflux, collections; rows = dermaflux.open_corpus(); "
        "print(sorted(collections.Counter(zip(rows['source'], rows['label'])).items()))"
    )
    expected = [(("example", "benign"), 4), (("example", "malignant"), 4)]
    assert checkout.run(f'python -c "{count}"').splitlines()[-1] == str(expected)
    quarantine = (checkout.root / "reports" / "quarantine.csv").read_text()
    assert quarantine.count("it must be one of nevus, melanoma") == 4


@pytest.mark.slow
def test_the_generator_example_keeps_the_contract_and_fills_a_pool(checkout: Checkout) -> None:
    assert re.search(r"\d passed", checkout.follow("Add a generator"))
    checkout.set("generator: flux_lora", "generator: class_mean")
    checkout.set("\nfinetune:\n", "\nfinetune:\n  class_mean: {}\n")
    checkout.set("\nsynthesize:\n", "\nsynthesize:\n  class_mean: {noise: 0.1}\n")
    checkout.run(
        "python -c 'from pathlib import Path; from small_generator import *; "
        "write_corpus(Path(), [corpus_row(index, 128) for index in range(6)])'"
    )
    checkout.run("dermaflux finetune && dermaflux synthesize")
    assert "bit-identical" in checkout.run("dermaflux reproduce synthetic/000003")
    count = (
        "import dermaflux; pool = dermaflux.open_corpus('synthetic'); "
        "print(len(pool), set(pool['generator']), sorted(set(pool['label'])))"
    )
    expected = "420 {'class_mean'} ['benign', 'malignant']"
    assert checkout.run(f'python -c "{count}"').splitlines()[-1] == expected


@pytest.mark.slow
def test_the_recipe_example_keeps_the_contract_and_trains_a_cell(checkout: Checkout) -> None:
    assert re.search(r"\d passed", checkout.follow("Add a classifier recipe"))
    checkout.run(
        "python -c 'import json, toy_corpus; toy_corpus.write(); "
        "params = toy_corpus.parameters().model_dump(by_alias=True); "
        'params["train"] |= {"recipe": "focal", "arms": ["real"], "curve": []}; '
        'open("params.yaml", "w").write(json.dumps(params))\''
    )
    output = checkout.run("dermaflux train --architecture vit --seed 0")
    assert "vit-0/real: validation AUC" in output
