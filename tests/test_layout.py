"""Promises about the code itself: one name per stage, rooms in order, light imports."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from dermaflux.cli import app
from dermaflux.core.code_digest import STAGE_CODE
from dermaflux.params.choices import GENERATORS, RECIPES, pretrains

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "dermaflux"
ROOMS = [
    "phantom", "sources", "download", "corpus", "captions", "validation", "training", "generators",
    "audit", "metrics", "statistics", "classifiers", "registry", "reporting", "sharing", "browse",
    "sweeps",
]  # fmt: skip
"""In the order in which data flows through them."""
BELOW = ["core", "tracking", "params"]
"""What every room may import, and what imports no room."""


def stages() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())[
        "stages"
    ]
    return found


AGAIN = {"evaluate_students": "evaluate"}
"""A stage that is another one over again -> that other one."""
NAMED = [stage for stage in stages() if stage not in AGAIN]


@pytest.mark.parametrize(("stage", "other"), AGAIN.items())
def test_a_stage_over_again_differs_by_its_matrix_alone(stage: str, other: str) -> None:
    again, first = ({**stages()[name], "matrix": {}} for name in (stage, other))
    assert again == first
    assert stages()[stage]["matrix"] != stages()[other]["matrix"]


def test_a_new_figure_of_the_audit_retrains_nothing() -> None:
    reads = {name: stage["deps"] for name, stage in stages().items()}
    assert {name for name in reads if "reports/audit.json" in reads[name]} == {"report"}
    rejected = {name for name in reads if "reports/rejected.json" in reads[name]}
    assert rejected == {"pretrain", "train", "distill", "report"}


@pytest.mark.parametrize("stage", NAMED)
def test_a_stage_has_one_name_everywhere(stage: str) -> None:
    assert stage in get_command(app).commands  # type: ignore[attr-defined]
    # Of the gate of that stage, and of what chooses its images.
    section = "synthesize" if stage in ("validate_pool", "selector") else stage
    assert section in YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    modules = [f"dermaflux.{room}.{stage}" for room in ROOMS]
    assert sum(importlib.util.find_spec(module) is not None for module in modules) == 1
    assert str(stages()[stage]["cmd"]).startswith(f"dermaflux {stage}")


def imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = (name.split(".") for name in names if name.startswith("dermaflux."))
    return {part[1] for part in parts if part[1] in ROOMS}


STUB = SOURCE / "classifiers" / "registry.py"
"""Stored inside models registered before the room `registry` existed; imported by MLflow alone."""


def test_no_room_imports_a_later_one() -> None:
    for number, room in enumerate(ROOMS):
        for path in (SOURCE / room).rglob("*.py"):
            later = imported_rooms(path) & set(ROOMS[number + 1 :])
            assert not later or path == STUB, f"{path.relative_to(ROOT)} imports {later}"


@pytest.mark.parametrize("name", BELOW)
def test_what_every_room_imports_imports_no_room(name: str) -> None:
    for path in (SOURCE / name).rglob("*.py"):
        assert not imported_rooms(path), path.relative_to(ROOT)


def test_every_folder_is_a_known_room_and_small() -> None:
    folders = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {*ROOMS, *BELOW}
    for folder in SOURCE.rglob("*/"):
        modules = [path for path in folder.glob("*.py") if path.stem != "__init__"]
        assert len(modules) <= 15, folder.relative_to(ROOT)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = ["torch", "mlflow", "pandas", "numpy", "skimage", "great_expectations", "dvc"]
    loaded = python(f"import sys, dermaflux.cli; print([m for m in {heavy} if m in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.slow
def test_compute_modules_import_without_dvc_and_mlflow() -> None:
    rooms = ["training", "generators", "audit", "metrics", "statistics", "classifiers"]
    modules = [
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for room in rooms
        for path in sorted((SOURCE / room).rglob("*.py"))
        if path.stem != "__init__" and path != STUB
    ]
    python(
        "import importlib, sys\n"
        "sys.modules['mlflow'] = sys.modules['dvc'] = None\n"
        f"for name in {modules}: importlib.import_module(name)"
    )


PLUMBING = {
    "api", "cli", "cli_models", "cli_tools", "errors", "launch", "params", "paths", "progress",
    "tracking",
}  # fmt: skip
"""Modules that carry values and never decide them; so do `protocol`, `registry` and `settings` of
generators and recipes, and what classifiers log."""
GATES = {"train": {"validation"}}
"""Stage -> room that may stop it and decides no byte of what it writes."""
CHOICES = [{"generator": name, "recipe": "supervised"} for name in GENERATORS]
CHOICES += [{"generator": "flux_lora", "recipe": name} for name in RECIPES]


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from executed(node)


def sources_of(module: str, seen: set[Path]) -> set[Path]:
    """Files of this package that a module imports, directly or through others."""
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin) if spec and spec.origin else None
    if path is None or path in seen or SOURCE not in path.parents:
        return seen
    seen.add(path)
    for node in executed(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dermaflux"):
            sources_of(str(node.module), seen)
            for alias in node.names:
                candidate = f"{node.module}.{alias.name}"
                if (SOURCE.parent / candidate.replace(".", "/")).with_suffix(".py").is_file():
                    sources_of(candidate, seen)
    return seen


def roots(stage: str, choice: dict[str, str]) -> list[str]:
    """The stage's module, and those that it imports by the name that a parameter chooses."""
    room = next(
        room for room in ROOMS if importlib.util.find_spec(f"dermaflux.{room}.{stage}") is not None
    )
    entries = {
        "finetune": [f"{GENERATORS[choice['generator']]}.training.trainer"],
        "synthesize": [f"{GENERATORS[choice['generator']]}.sampling.generator"],
        "train": [f"{RECIPES[choice['recipe']]}.recipe"],
    }
    if pretrains(choice["recipe"]):
        entries["pretrain"] = [f"{RECIPES[choice['recipe']]}.pretraining"]
    return [f"dermaflux.{room}.{stage}", *entries.get(stage, [])]


def deciding(stage: str, choice: dict[str, str]) -> set[str]:
    """Modules, as paths below the package, that decide what a stage writes."""
    seen: set[Path] = set()
    for module in roots(stage, choice):
        sources_of(module, seen)
    names = [path.relative_to(SOURCE) for path in seen if path.stem != "__init__"]
    return {
        name.as_posix()
        for name in names
        if name.with_suffix("").parts[0] not in PLUMBING | GATES.get(stage, set())
        and name.parts[:2] != ("classifiers", "logging")
        and (name.parts[0] not in ("generators", "classifiers") or name.stem not in ENTRIES)
    }


ENTRIES = {"protocol", "registry", "settings"}


def inside(name: str, entry: str) -> bool:
    return name == entry or name.startswith(f"{entry}/")


@pytest.mark.parametrize("stage", NAMED)
def test_dependencies_are_complete_and_minimal(stage: str) -> None:
    """A change in any imported module runs the stage again, and a change elsewhere does not."""
    used = set()
    for choice in CHOICES:
        entries = {entry.format(**choice): entry for entry in STAGE_CODE[stage]}
        for name in deciding(stage, choice):
            owners = [entry for place, entry in entries.items() if inside(name, place)]
            assert owners, f"{stage} imports {name} with {choice}"
            used.update(owners)
    assert used == set(STAGE_CODE[stage]), f"{stage} depends on what it does not import"


@pytest.mark.parametrize("stage", NAMED)
def test_a_checkpoint_key_covers_the_dependencies_of_dvc(stage: str) -> None:
    code = [str(dep) for dep in stages()[stage]["deps"] if str(dep).startswith("${code}/")]  # type: ignore[attr-defined]
    named = [dep.removeprefix("${code}/") for dep in code]
    named = [dep.replace("${generator}", "{generator}") for dep in named]
    named = [dep.replace("${train.recipe}", "{recipe}") for dep in named]
    assert named == list(STAGE_CODE[stage])


def test_dvc_yaml_is_one_that_a_person_reads() -> None:
    lines = (ROOT / "dvc.yaml").read_text().splitlines()
    assert len(lines) <= 220
    # The 61st: the audit finds copies with the leak guard's matcher. Nine more: `distill`; ten:
    # `pretrain`, which shares its crops with what classifiers share; eight: `selector`.
    assert sum(map(len, STAGE_CODE.values())) <= 88
