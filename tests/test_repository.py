"""What a stranger finds in the repository: licence, citation, changelog and commit hooks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from make_recipes import parameters, recipe
from ruamel.yaml import YAML

from dermaflux.params import load

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def yaml(name: str) -> dict[str, object]:
    content: dict[str, object] = YAML(typ="safe").load((ROOT / name).read_text())
    return content


def test_licence_and_citation_agree_with_the_package() -> None:
    citation = yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    for entry in [citation, *citation["references"]]:  # type: ignore[misc]
        assert entry["authors"]
        assert entry["title"]
    # The README names what it implements; the citation names the same paper.
    arxiv = re.findall(r"arxiv\.org/abs/(\d{4}\.\d{5})", (ROOT / "README.md").read_text())
    assert arxiv
    assert all(number in (ROOT / "CITATION.cff").read_text() for number in arxiv)


def test_the_changelog_tells_of_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert PROJECT["version"] in headings


def test_the_overrides_of_make_dermae_fit_the_shipped_parameters() -> None:
    params = load.parse(parameters("dermae"))
    assert (params.train.recipe, params.distill.students) == ("mae", ["resnext"])


def test_the_overrides_of_make_controls_fit_the_shipped_parameters() -> None:
    params = load.parse(parameters("controls"))
    assert params.generator == "released"
    # The curve reaches beyond a mixture of perfect images, so that an interval can close above 1.
    assert max(params.curve_sizes().values()) > (params.n_real + params.synthetic_wanted()) / 2


def test_commit_hooks_run_what_lint_and_ci_run() -> None:
    (local,) = yaml(".pre-commit-config.yaml")["repos"]  # type: ignore[misc]
    assert local["repo"] == "local"  # a hook from elsewhere would be a download, of another version
    hooks = [hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]]
    assert hooks == recipe("lint")
    assert all(hook["language"] == "system" for hook in local["hooks"])
    assert all(hook["pass_filenames"] is False for hook in local["hooks"])
    assert "make lint" in (ROOT / ".ci" / "run").read_text()


def test_the_package_is_installed_with_its_types() -> None:
    package = ROOT / "src" / "dermaflux"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert patterns["package-data"]["dermaflux"] == ["py.typed", "*.pyi"]
    assert (package / "py.typed").is_file()
