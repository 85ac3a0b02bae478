from __future__ import annotations

import ast
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML
from typer.main import get_command

from dermaflux.cli import app
from dermaflux.params import Params

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of a page that are marked with a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def stated_value(line: str) -> object:
    """What the comment behind an expression says its value is; raise ValueError for a remark."""
    try:
        return ast.literal_eval(line.split("  # ")[1].strip())
    except (IndexError, SyntaxError) as error:
        raise ValueError(line) from error


@pytest.mark.slow
def test_the_examples_of_the_python_api_run_and_give_what_they_say(
    notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(notebook)
    names: dict[str, object] = {}
    checked = 0
    for block in blocks(ROOT / "docs" / "api.md", "python"):
        for statement in ast.parse(block).body:
            source = ast.get_source_segment(block, statement)
            assert source is not None
            if not isinstance(statement, ast.Expr):
                exec(source, names)
                continue
            value = eval(source, names)
            try:
                stated = stated_value(block.splitlines()[statement.end_lineno - 1])  # type: ignore[operator]
            except ValueError:
                continue
            assert value == stated, source
            checked += 1
    assert checked >= 8
    assert {"corpus", "generator", "answers", "means"} <= names.keys()


def test_the_picture_of_the_data_flow_is_that_of_the_pipeline() -> None:
    from draw_architecture import PICTURE, Stage, columns, draw, read_stages
    from ruamel.yaml import YAML

    stages = read_stages(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text()))
    assert PICTURE.read_text() == draw(stages), "run `python docs/draw_architecture.py`"
    by_name = {stage.name: stage for stage in stages}
    assert by_name["train"].writes == ("models/classifiers",)
    read = {"corpus", "captions", "synthetic", "reports/validate_pool.json"}
    assert set(by_name["audit"].reads) == read
    # One stage more is one row and, for what flows on, one column more.
    more = [*stages, Stage("new", "", ("corpus",), ("models/new",))]
    assert len(columns(more)) == len(columns(stages)) + 1
    assert draw(more).count('class="box"') == len(stages) + 1


def code(page: Path) -> Iterator[str]:
    """What a page prints as code: inline spans, and the lines of blocks but Python and diffs."""
    text = page.read_text()
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language not in ("python", "diff"):
            yield from block.splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", prose)


def outputs() -> list[str]:
    """What the pipeline writes, and so need not be in a checkout."""
    from draw_architecture import read_stages

    stages = read_stages(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text()))
    return [path for stage in stages for path in stage.writes]


WRITTEN = [
    *outputs(), "reports/grids", "reports/deployment", "models/deployment", "mlruns",
    ".dvc/config.local", ".dermaflux",
]  # fmt: skip
"""By stages, `dermaflux results` and `dermaflux deployment`, MLflow, DVC; caches."""
CHECKED = {*(path.name for path in ROOT.iterdir()), *(path.split("/")[0] for path in WRITTEN)}
"""First parts of the paths that are checked; others, such as a dataset's, are not ours."""


def is_there(path: str, page: Path) -> bool:
    if (ROOT / path).exists() or any(f"{path}/".startswith(f"{out}/") for out in WRITTEN):
        return True
    # CONTRIBUTING.md has its reader create files, and folders for them.
    created = re.findall(r"^```python\n# (\S+)", page.read_text(), re.MULTILINE)
    return any(f"{file}/".startswith(f"{path}/") for file in created)


@EVERY_PAGE
def test_every_path_and_link_exists(page: Path) -> None:
    for span in code(page):
        for path in re.findall(r"(?<![\w./:-])(\.?\w[\w.-]*/[\w./-]*\w)", span):
            if path.split("/")[0] in CHECKED - {"data"}:
                assert is_there(path, page), path
    anchors = {}
    for other in PAGES:
        headings = re.findall(r"^#+ (.+)$", other.read_text(), re.MULTILINE)
        anchors[other] = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors[linked], target


@EVERY_PAGE
def test_every_command_and_option_exists(page: Path) -> None:
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    for line in code(page):
        for name, rest in re.findall(r"\bdermaflux ([a-z][\w-]*)([^|;&#]*)", line):
            assert name in commands, line
            options = {option for param in commands[name].params for option in param.opts}
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
                assert option in options, line


def has_parameter(keys: list[str], kind: Any = Params) -> bool:
    """Whether the schema has a parameter under these keys."""
    if not keys:
        return True
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {field.alias or name: field for name, field in kind.model_fields.items()}
        return keys[0] in fields and has_parameter(keys[1:], fields[keys[0]].annotation)
    if typing.get_origin(kind) is dict:
        return has_parameter(keys[1:], typing.get_args(kind)[1])
    return any(has_parameter(keys, part) for part in typing.get_args(kind))


SECTIONS = {field.alias or name for name, field in Params.model_fields.items()}


@EVERY_PAGE
def test_every_parameter_exists(page: Path) -> None:
    for span in code(page):
        names = re.findall(r"-S '?([a-z_.]+)=", span)
        dotted = re.match(r"([a-z_]+(?:\.[a-z_]+)+)(?=$|:| )", span)
        if dotted and not dotted[1].endswith((".py", ".md", ".json", ".csv", ".yaml", ".lock")):
            names.append(dotted[1])
        for name in names:
            keys = name.split(".")
            if keys[0] in SECTIONS:
                assert has_parameter(keys), name


def test_checks_of_the_pages_see_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text, check in (
        ("`src/dermaflux/core/tables.py`", test_every_path_and_link_exists),
        ("[grids](docs/girds.md)", test_every_path_and_link_exists),
        ("`dermaflux predicts`", test_every_command_and_option_exists),
        ("```sh\ndermaflux caption --guess\n```", test_every_command_and_option_exists),
        ("`train.epoch: 3`", test_every_parameter_exists),
        ("```sh\ndvc exp run -S 'train.epoch=3'\n```", test_every_parameter_exists),
    ):
        page.write_text(text + "\n")
        with pytest.raises(AssertionError):
            check(page)
