"""Requests of anybody, mutated: a prediction, or a status of the caller's fault and one sentence.

`make attack` tries sixty times as many.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pandas as pd
import pytest
import served_requests as served
import small_registry as small
from hypothesis import given
from hypothesis import strategies as st
from mutations import mutated

from dermaflux.registry import scoring
from dermaflux.registry.serving import LesionClassifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> LesionClassifier:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("served"))
        small.corpus()
        return LesionClassifier(small.classifier("vit-0", "real", noise=1.0).resolve())


def ask(classifier: Any, body: bytes, kind: str | None = served.JSON) -> dict[str, Any]:
    """The answer to a request, checked: never a fault of the server."""
    answer = scoring.invocations(body, kind, classifier, None)
    assert answer.mimetype == "application/json"
    content: dict[str, Any] = json.loads(
        answer.response, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")
    )
    if answer.status == 200:
        assert set(content) == {"predictions"}
        for row in content["predictions"]:
            assert (row["problem"] is None) == (row["probability"] is not None)
            assert row["problem"] is None or row["problem"].isprintable()
    else:
        assert 400 <= answer.status < 500, content
        assert set(content) == {"error_code", "message"}
        assert content["message"].isprintable()
        assert len(content["message"]) < 500
    return content


RECORDS = json.dumps({"dataframe_records": [{"image": served.TEXT, "n": 1}, {"image": "x"}]})


@given(mutated([served.split(served.TEXT), RECORDS.encode(), b'{"dataframe_split": {}}']))
def test_mutated_bodies(classifier: LesionClassifier, body: bytes) -> None:
    ask(classifier, body)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=20)
        | st.sampled_from([served.TEXT, "image", "columns", "data"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["dataframe_split", "dataframe_records", "columns", "data", "image", "inputs"]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(
        [served.JSON, "application/json;charset=utf-8", "", None, "text/csv", ";;=", "\0"]
    ),
)
def test_any_json_and_content_type(
    classifier: LesionClassifier, value: Any, kind: str | None
) -> None:
    ask(classifier, json.dumps(value).encode(), kind)


@given(mutated([served.IMAGE]))
def test_mutated_pictures(classifier: LesionClassifier, image: bytes) -> None:
    content = ask(classifier, served.split(base64.b64encode(image).decode(), served.TEXT))
    whole = content["predictions"][1]["probability"]
    assert whole == LesionClassifier.predict_images(classifier, [served.IMAGE])[0]["probability"]


@given(st.lists(st.one_of(st.binary(max_size=40), st.text(), st.integers(), st.none()), max_size=4))
def test_any_column_of_another_server(classifier: LesionClassifier, cells: list[Any]) -> None:
    from mlflow.exceptions import MlflowException

    frame = pd.DataFrame({"image": pd.Series(cells, dtype=object)})
    if cells and all(isinstance(cell, bytes) for cell in cells):
        assert len(classifier.predict(frame)) == len(cells)
    else:
        with pytest.raises(MlflowException) as caught:
            classifier.predict(frame)
        assert caught.value.get_http_status_code() == 400
        assert "\n" not in str(caught.value)
