"""Whatever stands in a parameter file ends in valid parameters or in one sentence."""

from __future__ import annotations

import copy
import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from dermaflux.captions import estimate
from dermaflux.classifiers.data import arm_plan
from dermaflux.errors import InputError
from dermaflux.generators.pool import plan as pool
from dermaflux.params import RELEASED_BACKBONE, Params, TokenPrice, load
from dermaflux.sweeps import grid, plan
from dermaflux.training.schedule import lr_scale

ROOT = Path(__file__).parents[2]
OWN = {
    "name": "ours",
    "folder": "ours",
    "csv": "t.csv",
    "columns": {"image": "file", "label": "dx"},
    "labels": {"naevus": "benign"},
}


SHIPPED: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
SHIPPED["ingest"]["own"] = [OWN]


def shipped() -> dict[str, Any]:
    return copy.deepcopy(SHIPPED)


SCHEMA = Params.model_json_schema(by_alias=True)


def resolved(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a schema, references followed."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from resolved(part)
    else:
        yield schema


def leaves(schema: dict[str, Any], path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Paths of every key, and of an entry of every list and mapping."""
    yield path
    for part in resolved(schema):
        for name, inner in part.get("properties", {}).items():
            yield from leaves(inner, (*path, name))
        if isinstance(part.get("items"), dict):
            yield from leaves(part["items"], (*path, 0))
        if isinstance(part.get("additionalProperties"), dict):
            yield from leaves(part["additionalProperties"], (*path, "vit"))


PATHS = sorted(set(leaves(SCHEMA, ())) - {()}, key=str)


def numbers_and_lengths(schema: dict[str, Any], path: tuple[Any, ...]) -> Iterator[str]:
    """Keys whose numbers or lengths have no bound."""
    for part in resolved(schema):
        kind = part.get("type")
        if kind in ("integer", "number"):
            low = {"minimum", "exclusiveMinimum", "const", "enum"} & part.keys()
            high = {"maximum", "exclusiveMaximum", "const", "enum"} & part.keys()
            if not low or not high:
                yield f"{path}: a number without bounds"
        elif kind == "string" and not {"maxLength", "enum", "const"} & part.keys():
            yield f"{path}: a text without a longest length"
        elif kind == "array" and "maxItems" not in part:
            yield f"{path}: a list without a longest length"
        elif kind == "object" and "properties" not in part:
            names = part.get("propertyNames", {})
            if "maxProperties" not in part and "enum" not in names and names:
                yield f"{path}: a mapping without a largest size"
        for name, inner in part.get("properties", {}).items():
            yield from numbers_and_lengths(inner, (*path, name))
        for inner in [part.get("items"), part.get("additionalProperties")]:
            if isinstance(inner, dict):
                yield from numbers_and_lengths(inner, (*path, "[]"))
        for inner in part.get("prefixItems", []):
            yield from numbers_and_lengths(inner, (*path, "[]"))


def test_every_number_has_bounds_and_every_text_list_and_mapping_a_longest_length() -> None:
    assert list(numbers_and_lengths(SCHEMA, ())) == []


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The shipped parameters with one value replaced, made room for where there is none."""
    raw = shipped()
    section: Any = raw
    for part, following in zip(path, path[1:], strict=False):
        if isinstance(section, list):
            if not section:
                section.append(None)
        elif part not in section:
            section[part] = None
        if section[part] is None or not isinstance(section[part], dict | list):
            section[part] = [] if following == 0 else {}
        section = section[part]
    if isinstance(section, list):
        section[:1] = [value]
    else:
        section[path[-1]] = value
    return raw


HUGE = [10**20, 10**400, 2**31, 2**63, -1, -(10**20), 0, 1, 2, 10**5000]
FLOATS = [float("inf"), float("-inf"), float("nan"), 1e308, 5e-324, -0.0, 1e20, 1.0]
TEXTS = [
    "x" * 5000, "", " ", "a\x00b", "\x1b[2J", "a\nb", "\ud800", "\u2028", "1", "true", "../..",
    "/" * 900, "http://[::1", "http://h:99999/v1", "http://a..b/v1", f"http://{'h' * 300}.de", "'",
    "http://\u2100.com", "{c}", "{c} {0} {x}", "C:\\con", "~", "$HOME", "ä" * 200,
]  # fmt: skip
OTHERS = [None, True, False, b"bytes", datetime.date(2020, 1, 1), {1, 2}, object(), {}, [], [[]]]
PLAIN = st.one_of(
    st.sampled_from(HUGE[:-1]),  # hypothesis prints them, Python refuses over 4,300 digits
    st.sampled_from(FLOATS),
    st.sampled_from(TEXTS),
    st.sampled_from(OTHERS),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
)
NASTY = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=8,
)
BOMB: list[Any] = [1]
for _ in range(40):
    BOMB = [BOMB] * 10
DEEP: dict[str, Any] = {}
for _ in range(3000):
    DEEP = {"a": DEEP}
LONG = [*HUGE, *FLOATS, *TEXTS, *OTHERS, BOMB, DEEP, ["a"] * 10_000, list(range(5000))]


def consume(params: Params) -> None:
    """The cheap, pure functions of parameters: none may fail on values that are accepted."""
    trainings = plan.trainings(params, 30_000)
    rates = dict.fromkeys(params.train.architectures, (1e-3, 1e-3))
    assert plan.duration(plan.seconds(plan.passes(trainings, 10_000_000), rates))
    table = estimate.Estimate(10, 0, 10, 1000, 10 * params.caption.maximum_tokens, 0)
    price = params.runtime.caption.price_per_million_tokens
    assert np.isfinite(table.cost(price))
    assert isinstance(price, TokenPrice)
    estimate.lines(table, params.caption, price, 1.0)
    few = min(params.synthesize.images, 50)
    pool.shards([(0,)] * few, params.synthesize.shard_images, params.synthesize.batch)
    steps = params.train.epochs
    for step in range(3):
        assert np.isfinite(lr_scale(step, steps, params.train.warmup_epochs))
    for arm in params.train.arms:
        arm_plan.plan(arm, np.array([0, 1]), {0: 3, 1: 3}, params.train.augmentation)
    grid.command_line({}, {"train.models": params.train.model_dump()["models"]})


def check(raw: Any) -> bool:
    """Whether the parameters are valid; fails for anything but that or one sentence."""
    try:
        params = load.parse(raw)
    except InputError as error:
        text = str(error)
        assert len(text) <= 1000
        assert text.isprintable()
        assert text.startswith("params.yaml: ")
        return False
    consume(params)
    return True


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_known_bad_values_of_every_key(path: tuple[Any, ...]) -> None:
    accepted = [value for value in LONG if check(changed(path, value))]
    for value in accepted:
        assert not (isinstance(value, float) and not np.isfinite(value))
        assert not (isinstance(value, int) and abs(value) > 10**15)
        assert not (isinstance(value, str) and len(value) >= 5000)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(path=st.sampled_from(PATHS), value=NASTY)
def test_any_value_of_any_key_is_accepted_or_one_sentence(
    path: tuple[Any, ...], value: Any
) -> None:
    check(changed(path, value))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(raw=NASTY)
def test_any_document_is_refused_in_one_sentence(raw: Any) -> None:
    assert not check(raw)


def test_extreme_values_that_are_accepted_crash_no_plan() -> None:
    raw = shipped()
    raw |= {"n_real": 10_000, "ratio": 1000.0, "n_synthetic": None}
    raw["synthesize"] |= {"images": 10_000_000, "shard_images": 10_000_000, "batch": 65_536}
    raw["train"] |= {"epochs": 100_000, "warmup_epochs": 100_000, "seeds": list(range(1000))}
    raw["caption"] |= {"maximum_tokens": 100_000}
    assert check(raw)


BOMB_YAML = "\n".join(["a0: &a0 [x, x]"] + [
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 60)
])  # fmt: skip
DOCUMENTS: dict[str, tuple[bytes, str]] = {
    "utf-16": ("seed: 0".encode("utf-16"), "is not UTF-8 text (line 1"),
    "latin-1": ("seed: 0\ndata: Läsion".encode("latin-1"), "is not UTF-8 text (line 2"),
    "nul": (b"seed: \x00", "is not valid YAML"),
    "deep lists": (b"a: " + b"[" * 3000, "nested over 30 deep"),
    "deep mappings": (
        "\n".join(" " * n + "a:" for n in range(600)).encode(), "nested over 30 deep",
    ),
    "bomb": (BOMB_YAML.encode(), "too large"),
    "wide": (b"a: [" + b"1, " * 30_000 + b"1]", "too large"),
    "large": (b"# " + b"x" * 600_000, "more than 500,000 bytes"),
    "itself": (b"a: &a [*a]", "*a has no value before this line"),
    "no anchor": (b"a: *b", "*b has no value before this line"),
    "tag": (b"a: !!python/object:os.system x", "the tag 'tag:yaml.org,2002:python/object:os"),
    "set": (b"a: !!set {1, 2}", "has no meaning here"),
    "twice": (b"seed: 1\nseed: 2", "line 2: found duplicate key"),
    "month": (b"seed: 2020-13-01", "an invalid number or date (month must be in 1..12)"),
    "digits": (b"seed: " + b"9" * 5000, "an invalid number or date"),
    "two": (b"seed: 1\n---\nseed: 2", "is not valid YAML"),
    "merge": (b"<<: 3", "is not valid YAML"),
    "list": (b"- 1", "holds no parameters"),
    "scalar": (b"1", "holds no parameters"),
    "empty": (b"", "holds no parameters"),
    "null": (b"null", "holds no parameters"),
    "date": (b"seed: 2020-01-01", "seed is datetime.date(2020, 1, 1) but should be a valid int"),
    "infinite": (b"ratio: .inf", "ratio is inf but should be a finite number"),
    "overflow": (b"ratio: 1e999", "ratio is inf but should be a finite number"),
    "key": (b"1: 2", "the key 1 is not text; put it in quotes"),
    "escape": (b'"\\e[2J": 2', "unknown parameter"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_broken_parameter_file_is_one_sentence_at_once(tmp_path: Path, kind: str) -> None:
    content, expected = DOCUMENTS[kind]
    path = tmp_path / "params.yaml"
    if kind in ("date", "infinite", "overflow", "key", "escape"):  # a value, the rest as shipped
        key = content.partition(b":")[0] + b":"
        lines = (ROOT / "params.yaml").read_bytes().splitlines(keepends=True)
        content = b"".join(line for line in lines if not line.startswith(key)) + content
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        load.load(path)
    assert time.process_time() - start < 5
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 1000


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(InputError, match="is a folder and not a YAML file"):
        load.load(tmp_path / "params.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load.load(tmp_path / ("x" * 5000))


def test_aliases_and_merge_keys_of_an_ordinary_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text().replace(RELEASED_BACKBONE, "tiny")
    text = text.replace("    resnext:\n", "    other: &o {name: x, learning_rate: 0.1}\n"
                        "    third: {<<: *o, name: z}\n    resnext:\n", 1)  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    third = load.load(path).train.models["third"]
    assert (third.name, third.learning_rate) == ("z", 0.1)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("../params", b"", "cannot name a grid"),
        ("x" * 5000, b"", "cannot"),
        ("a\x00", b"", "cannot name a grid"),
        ("g", b"a: *b", "has no value before this line"),
        ("g", BOMB_YAML.encode(), "too large"),
        ("g", b"\xff", "is not UTF-8 text"),
        ("g", b"description: x\nsource: y\nruns: []", "runs"),
        (
            "g",
            b"description: x\nsource: y\nruns:\n- vary: {a: &l [1, 2, 3, 4, 5, 6, 7, 8], b: *l, "
            b"c: *l, d: *l, e: *l}",
            "stands for 32,768 runs",
        ),
        (
            "g",
            b"description: x\nsource: y\nruns: [{}]\n"
            b"published: [{at: {}, architecture: v, figure: f, value: .inf}]",
            "should be a finite number",
        ),
    ],
)
def test_a_broken_grid_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grids").mkdir()
    Path("grids/g.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        grid.runs(name, grid.load(name))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
