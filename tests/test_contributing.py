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
COPIED = ("src", "tests", "profiles", "params.yaml", "dvc.yaml", "pyproject.toml")


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

    def apply(self, text: str) -> None:
        """Write the files whose first line is their path, and apply the diffs."""
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S):
            if language == "diff":
                command = ["git", "apply", "--unidiff-zero", "-"]
                subprocess.run(command, input=code, text=True, cwd=self.root, check=True)
            elif path := re.match(r"# (\S+\.\w+)\n", code):
                file = self.root / path[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(code.split("\n", 1)[1])

    def commands(self, text: str) -> str:
        """Run every line of the shell blocks; return what they print."""
        lines = [
            line
            for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
            for line in block.splitlines()
        ]
        assert lines
        return "".join(self.run(line) for line in lines)

    def run(self, command: str) -> str:
        """Run one command line as in an activated environment with this copy installed."""
        binaries = Path(sys.executable).parent
        environment = os.environ | {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
        }
        done = subprocess.run(
            command, shell=True, cwd=self.root, env=environment, capture_output=True, text=True
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
def test_the_adapter_example_is_listed_tested_and_ingested(checkout: Checkout) -> None:
    text = section("Add a dataset adapter")
    checkout.apply(text)
    output = checkout.commands(text)
    assert "Example Lesions" in output

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
