from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
    assert set(by_name["audit"].reads) == {"corpus", "synthetic"}
    # One stage more is one row and, for what flows on, one column more.
    more = [*stages, Stage("new", "", ("corpus",), ("models/new",))]
    assert len(columns(more)) == len(columns(stages)) + 1
    assert draw(more).count('class="box"') == len(stages) + 1
