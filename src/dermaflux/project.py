"""Projects outside a clone: what `dermaflux init` lays out, and whether it still fits the package.

A wheel carries the files of the repository's root that a project needs, in `dermaflux/layout`; an
editable installation takes them from its checkout. `tool.dermaflux` of pyproject.toml lists them.

In a clone `dvc.yaml` names source folders as dependencies, so that edited code runs its stages
again. A project has no source: there `code-hashes/` holds a file for each of those dependencies,
with the hash of the code that is installed. They are small, the same on every machine and in git,
so that collaborators, queued experiments and `dvc.lock` agree; after an upgrade of the package
`dermaflux init --refresh` writes them again, and `dvc repro` runs the stages whose code changed.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dermaflux.core.code_digest import STAGE_CODE
from dermaflux.errors import InputError, one_line, quoted
from dermaflux.params.choices import GENERATORS, RECIPES

CODE_HASHES = Path("code-hashes")
_PACKAGE = Path(__file__).parent
_IN_CLONE, _IN_PROJECT = b"code: src/dermaflux\n", f"code: {CODE_HASHES}\n".encode()
_ONLY_IN_CLONE = b"\n# --- Only in a clone"
"""Where the part of the Makefile begins that installs a clone, tests it and checks it."""
_RENAMED = {"deploy/workflow.yaml": ".github/workflows/dermaflux.yaml"}
"""File of the repository -> its name in a project."""
_REST = "rest"


def package_version() -> str:
    """Version of the installed package; `unknown` where it runs without being installed."""
    try:
        return version("dermaflux")
    except PackageNotFoundError:
        return "unknown"


def layout() -> dict[str, Path]:
    """Name of each file in a project -> where this installation has it.

    Raises `InputError` for an installation that does not have them.
    """
    root, names = _PACKAGE / "layout", ["."]
    if not root.is_dir():
        root = _PACKAGE.parents[1]
        try:
            settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
            names = settings["tool"]["dermaflux"]["layout"]
        except (OSError, KeyError):
            raise InputError(
                f"the installation in {_PACKAGE} lacks the files of a project; install dermaflux "
                "from its wheel, or with `pip install --editable` from a clone"
            ) from None
    files = {}
    for name in names:
        path = root / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                relative = file.relative_to(root).as_posix()
                files[_RENAMED.get(relative, relative)] = file
    return files


def _dependencies() -> list[str]:
    """Folders and modules of the package on which a stage of `dvc.yaml` may depend."""
    return sorted(
        {
            entry.format(generator=generator, recipe=recipe)
            for entries in STAGE_CODE.values()
            for entry in entries
            for generator in GENERATORS
            for recipe in RECIPES
        }
    )


def code_hashes() -> dict[str, str]:
    """File below `code-hashes/` -> SHA-256 of names and contents of the code it stands for.

    Where a dependency lies inside another, the outer one is a folder: `captions/text` and, for
    whatever else is in it, `captions/rest`.
    """
    dependencies = _dependencies()
    outer = {
        entry for entry in dependencies if any(d.startswith(f"{entry}/") for d in dependencies)
    }
    digests = {
        f"{entry}/{_REST}" if entry in outer else entry: hashlib.sha256() for entry in dependencies
    }
    for path in _code():
        name = path.relative_to(_PACKAGE).as_posix()
        owners = [entry for entry in dependencies if f"{name}/".startswith(f"{entry}/")]
        if owners:
            owner = max(owners, key=len)
            digest = digests[f"{owner}/{_REST}" if owner in outer else owner]
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _code() -> Iterator[Path]:
    """Files of the package in the order of their names."""
    for path in sorted(_PACKAGE.rglob("*")):
        parts = path.relative_to(_PACKAGE).parts
        if path.is_file() and "__pycache__" not in parts and parts[0] != "layout":
            yield path


def _write_code_hashes(folder: Path) -> None:
    shutil.rmtree(folder / CODE_HASHES, ignore_errors=True)
    for name, digest in code_hashes().items():
        path = folder / CODE_HASHES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{digest}\n", encoding="utf-8")


def require_current_code() -> None:
    """Raise `InputError` in a project whose `code-hashes/` are of other code than is installed.

    Otherwise `dvc.lock` would credit one version of the code with the work of another.
    """
    if not CODE_HASHES.is_dir():
        return
    written = {
        path.relative_to(CODE_HASHES).as_posix(): path.read_text(errors="replace").strip()
        for path in CODE_HASHES.rglob("*")
        if path.is_file()
    }
    installed = code_hashes()
    changed = sorted(
        name for name in {*written, *installed} if written.get(name) != installed.get(name)
    )
    if changed:
        raise InputError(
            f"{CODE_HASHES}/ does not match the installed dermaflux {package_version()} "
            f"({len(changed)} of {len(installed)} differ, such as {changed[0]}); run `dermaflux "
            "init --refresh .` and commit what it writes, or install the version it was written by"
        )


def refresh(folder: Path) -> None:
    """Write `code-hashes/` of a project again, for the code that is installed now."""
    if not (folder / CODE_HASHES).is_dir():
        raise InputError(
            f"{one_line(folder, 300)} has no {CODE_HASHES}/, so it is no project that `dermaflux "
            "init` created; name the folder of one"
        )
    _write_code_hashes(folder)
    print(f"init: {folder / CODE_HASHES} now matches dermaflux {package_version()}; commit it")


def init(folder: Path) -> None:
    """Lay out a project: files, git and DVC. Raises `InputError` rather than replace a file."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{one_line(folder, 300)} is a file; name a new folder")
    files = layout()
    present = sorted(
        name for name in (*files, str(CODE_HASHES), ".dvc") if (folder / name).exists()
    )
    if present:
        raise InputError(
            f"{one_line(folder, 300)} already has {quoted(present[0])}"
            f"{f' and {len(present) - 1} more files of a project' if present[1:] else ''}; name a "
            "new folder, or after an upgrade of dermaflux use `dermaflux init --refresh`"
        )
    if shutil.which("git") is None:
        raise InputError(
            "git is not installed, and DVC needs it for a project's history; install it"
        )
    for name, source in files.items():
        target, content = folder / name, source.read_bytes()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_in_project(name, content))
        if content[:2] == b"#!":  # a wheel may have lost that it can be run
            target.chmod(0o755)
    _write_code_hashes(folder)
    steps = [f"cd {shlex.quote(str(folder))}"]
    if not _start_history(folder):
        steps.append("git add . && git commit -m dermaflux   # experiments start from a commit")
    steps.append("make demo            # the whole pipeline on a rendered corpus, in minutes")
    steps.append("dermaflux sources    # real datasets; set data in params.yaml to their folder")
    print("\n  ".join([f"init: wrote {len(files)} files to {folder}. Next:", *steps]))


def _in_project(name: str, content: bytes) -> bytes:
    """The content that a file of the repository has in a project, where there is no source."""
    if name == "dvc.yaml":
        assert content.count(_IN_CLONE) == 1
        return content.replace(_IN_CLONE, _IN_PROJECT)
    if name == "Makefile":
        assert content.count(_ONLY_IN_CLONE) == 1
        return content.partition(_ONLY_IN_CLONE)[0]
    return content


def _start_history(folder: Path) -> bool:
    """Initialise git and DVC; whether everything was committed.

    Inside somebody's repository DVC is set up for the folder, and committing is left to them.
    """
    inside = _ran(folder, "git", "rev-parse", "--show-prefix", check=False)
    if inside is None:
        _ran(folder, "git", "init", "--quiet")
    below = [] if not (inside or "").strip() else ["--subdir"]
    _ran(folder, sys.executable, "-m", "dvc", "init", "--quiet", *below)
    _ran(folder, sys.executable, "-m", "dvc", "config", "core.analytics", "false")
    if inside is not None:
        return False
    _ran(folder, "git", "add", "--all")
    identity = []
    if not _ran(folder, "git", "config", "user.email", check=False):
        identity = ["-c", "user.name=dermaflux", "-c", "user.email=dermaflux@localhost"]
    message = f"Project created by dermaflux {package_version()}"
    _ran(folder, "git", *identity, "commit", "--quiet", "--no-gpg-sign", "--message", message)
    return True


def _ran(folder: Path, *command: str, check: bool = True) -> str | None:
    """What a command printed; None where it failed and may."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # nosec B603
    if done.returncode == 0:
        return done.stdout
    if not check:
        return None
    reason = one_line(" ".join((done.stderr or done.stdout).split()), 200)
    raise InputError(
        f"`{' '.join(command[-3:])}` failed in {one_line(folder, 300)} ({reason}); the files are "
        "written: fix that and run the command there"
    )
