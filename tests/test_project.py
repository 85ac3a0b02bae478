"""A project outside a clone: from the wheel, without the source beside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dermaflux import project
from dermaflux.errors import InputError

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: all that is installed of this package."""
    checkout = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('wheel'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    wheel = checkout / "wheel" / done.stdout.splitlines()[-1]
    assert wheel.stat().st_size < 10e6
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(site: Path, where: Path, *command: str, expect: int = 0) -> str:
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(site)}
    done = subprocess.run(
        command, cwd=where, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def laid_out(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home") / "lesions"
    run(site, folder.parent, sys.executable, "-m", "dermaflux", "init", "lesions")
    return folder


def test_the_wheel_lays_out_what_the_repository_holds(site: Path, laid_out: Path) -> None:
    assert (site / "dermaflux" / "py.typed").is_file()
    for name, source in project.layout().items():
        content = source.read_bytes()
        if name == "dvc.yaml":
            content = content.replace(b"code: src/dermaflux", b"code: code-hashes")
        if name == "Makefile":
            content = content[: content.index(b"\n# --- Only in a clone")]
        assert (laid_out / name).read_bytes() == content, name
    for name in ("Makefile", "profiles/paper.yaml", "grids/ratios.yaml", "deploy/slurm.sh"):
        assert (laid_out / name).is_file()
    assert os.access(laid_out / "deploy" / "slurm.sh", os.X_OK)
    assert not (laid_out / "src").exists()
    assert run(site, laid_out, "git", "status", "--porcelain") == ""
    targets = re.findall(r"(?m)^  make (\w+)", run(site, laid_out, "make", "help"))
    assert targets == ["help", "data", "demo", "dermae", "controls", "ui"]
    assert "VENV" not in (laid_out / "Makefile").read_text()


def test_a_stage_runs_by_dvc_and_other_code_runs_it_again(site: Path, laid_out: Path) -> None:
    assert "Running stage 'backbone'" in run(site, laid_out, "dvc", "repro", "backbone")
    run(site, laid_out, "git", "add", "--all")
    run(site, laid_out, "git", "commit", "--quiet", "--message", "pinned")
    module = site / "dermaflux" / "generators" / "backbone.py"
    before = module.read_text()
    module.write_text(before + "# upgraded\n")
    refused = run(site, laid_out, "dermaflux", "backbone", expect=1)
    assert "1 of 45 differ, such as generators/backbone.py); run `dermaflux init --ref" in refused
    assert "0.1.0" in run(site, laid_out, "dermaflux", "--version")
    run(site, laid_out, "dermaflux", "init", "--refresh", ".")
    changed = run(site, laid_out, "git", "diff", "--name-only").split()
    assert changed == ["code-hashes/generators/backbone.py"]
    module.write_text(before)
    run(site, laid_out, "dermaflux", "init", "--refresh", ".")
    assert run(site, laid_out, "git", "diff", "--name-only") == ""


def test_every_dependency_on_code_has_a_hash(laid_out: Path) -> None:
    from ruamel.yaml import YAML

    stages = YAML(typ="safe").load((laid_out / "dvc.yaml").read_text())["stages"]
    wanted = {dep for stage in stages.values() for dep in stage["deps"] if dep[:7] == "${code}"}
    for generator in ("flux_lora", "released", "latent_ddpm", "vap"):
        for recipe in ("supervised", "mae"):
            for dep in wanted:
                name = dep.replace("${code}", "code-hashes").replace("${generator}", generator)
                assert (laid_out / name.replace("${train.recipe}", recipe)).exists(), name


def test_nothing_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"already has 'params\.yaml'; name a new folder"):
        project.init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    with pytest.raises(InputError, match=r"no code-hashes/, so it is no project"):
        project.refresh(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        project.init(tmp_path / "params.yaml")


def test_inside_a_repository_committing_is_left_to_its_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    project.init(tmp_path / "part")
    assert "git add . && git commit" in capsys.readouterr().out
    assert (tmp_path / "part" / ".dvc" / "config").is_file()
    log = subprocess.run(["git", "log"], cwd=tmp_path, capture_output=True, check=False)
    assert log.returncode != 0  # no commit yet
