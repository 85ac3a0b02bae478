"""Requests of anybody to a served classifier: one answer in JSON, in limited time and memory."""

from __future__ import annotations

import functools
import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import served_requests as served
import small_registry as small
from layouts import random_image
from mlflow.exceptions import MlflowException
from PIL import Image, ImageCms

from dermaflux.core.images import Limits
from dermaflux.corpus.decoding.decode import CorpusImage, Rule, decode
from dermaflux.generators.released.sampling import collect
from dermaflux.registry import request_limits, scoring
from dermaflux.registry.files import pyfunc_model
from dermaflux.registry.serving import LesionClassifier, prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("served"))
        small.corpus()
        return small.classifier("vit-0", "real", noise=1.0).resolve()


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("model") / "model"
    pyfunc_model.write(path, folder, None, None)  # type: ignore[arg-type]
    return mlflow.pyfunc.load_model(str(path))


@pytest.mark.parametrize("request_", served.REFUSED, ids=lambda request: request.name)
def test_a_bad_request_has_one_sentence(model: Any, request_: served.Refused) -> None:
    start = time.monotonic()
    answer = scoring.invocations(request_.body, request_.content_type, model, None)
    assert (answer.status, answer.mimetype) == (request_.status, "application/json")
    content = json.loads(answer.response)
    assert set(content) == {"error_code", "message"}
    assert request_.words in content["message"]
    assert len(content["message"]) < 500
    assert "Traceback" not in answer.response
    assert time.monotonic() - start < 3


def test_both_forms_and_line_breaks_are_read(model: Any) -> None:
    lines = "\n".join(served.TEXT[at : at + 76] for at in range(0, len(served.TEXT), 76))
    records = {"dataframe_records": [{"image": lines, "note": 1}], "params": {"x": 1}}
    columns = {"columns": ["note", "image"], "index": [7], "data": [[None, served.TEXT]]}
    expected = LesionClassifier.predict_images(model._model_impl, [served.IMAGE])
    for body in (records, {"dataframe_split": columns}):
        answer = scoring.invocations(
            b"\xef\xbb\xbf" + json.dumps(body).encode(), "application/JSON; charset=UTF-8", model, 0
        )
        assert answer.status == 200
        assert json.loads(answer.response) == {"predictions": expected}


def test_a_fault_of_ours_is_told_without_its_traceback(model: Any) -> None:
    class Broken:
        def predict(self, frame: pd.DataFrame) -> None:
            raise RuntimeError("/secret/path")

    answer = scoring.invocations(served.split(served.TEXT), served.JSON, Broken(), None)  # type: ignore[arg-type]
    assert answer.status == 500
    assert "secret" not in answer.response
    assert json.loads(answer.response)["error_code"] == "INTERNAL_ERROR"


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "holds no image"),
        ([served.IMAGE] * 257, "257 images"),
        ([served.TEXT.encode()], "holds base64 that nothing decoded"),
        ([bytes(33_000_000)] * 2, "66 MB"),
    ],
)
def test_limits_hold_without_our_reading_of_requests(
    model: Any, images: list[bytes], words: str
) -> None:
    """As in servers that are not MLflow's own, which call the model's `predict` alone."""
    with pytest.raises(MlflowException, match=words) as raised:
        model.predict(pd.DataFrame({"image": pd.Series(images, dtype=object)}))
    assert raised.value.get_http_status_code() == 400
    assert set(json.loads(raised.value.serialize_as_json())) == {"error_code", "message"}


def test_a_large_image_costs_its_row_only(model: Any) -> None:
    large = io.BytesIO()
    Image.new("L", (7200, 7000), 90).save(large, "PNG")
    frame = model.predict(pd.DataFrame({"image": [large.getvalue(), served.IMAGE]}))
    assert "limit of 50 megapixels" in frame["problem"][0]
    assert frame["probability"][1] == pytest.approx(
        model.predict(pd.DataFrame({"image": [served.IMAGE]}))["probability"][0]
    )


def test_the_time_of_a_request_is_shared_by_its_images(folder: Path) -> None:
    classifier = LesionClassifier(folder)
    limits = Limits(10**6, 20.0, end=time.monotonic() - 1)
    rows = classifier.predict_images([served.IMAGE, b"text"], limits)
    assert "more than 20 s, the limit" in rows[0]["problem"]
    assert "text" in rows[1]["problem"]
    assert request_limits.limits().end <= time.monotonic() + request_limits.SECONDS


def test_requests_at_the_same_time_take_turns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, inside, most = LesionClassifier(folder), [0], [0]
    original = classifier.predict_images

    def counted(*arguments: Any) -> list[dict[str, Any]]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        rows = original(*arguments)
        inside[0] -= 1
        return rows

    monkeypatch.setattr(classifier, "predict_images", counted)
    frame = pd.DataFrame({"image": [served.IMAGE]})
    threads = [threading.Thread(target=classifier.predict, args=[frame]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def _encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@functools.cache
def _pictures() -> dict[str, bytes]:
    rgb = random_image(5, 512, 512)
    grey = rgb.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    cut_out = rgb.convert("RGBA")
    cut_out.putalpha(Image.linear_gradient("L").resize((512, 512)))
    palette = rgb.quantize(64)
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return {
        "grey": _encoded(grey),
        "16-bit grey": _encoded(deep),
        "transparent": _encoded(cut_out),
        "transparent grey": _encoded(cut_out.convert("LA")),
        "palette": _encoded(palette, transparency=3),
        "1-bit": _encoded(grey.convert("1")),
        "one clear colour": _encoded(rgb, transparency=rgb.getpixel((9, 9))),
        "CMYK": _encoded(rgb.convert("CMYK"), "JPEG", quality=97),
        "turned": _encoded(rgb, "JPEG", quality=97, exif=exif),
        "turned PNG": _encoded(rgb, exif=exif),
        "progressive": _encoded(rgb, "JPEG", quality=97, progressive=True),
        "colour profile": _encoded(rgb, icc_profile=wide),
        "two pictures": _encoded(rgb, "MPO", quality=97, save_all=True, append_images=[grey]),
    }


@pytest.mark.parametrize("name", _pictures())
def test_serving_ingest_and_pools_see_the_same_picture(name: str) -> None:
    content = _pictures()[name]
    served_pixels = prepare(content, 512).astype(float)
    corpus = decode(content, Rule(512, 100))
    assert isinstance(corpus, CorpusImage)
    ingested = np.asarray(Image.open(io.BytesIO(corpus.encoded)).convert("RGB"), float)
    assert np.abs(ingested - served_pixels).mean() < 1  # JPEG at quality 100
    pool = Image.open(io.BytesIO(collect.fit(content, 512).encoded)).convert("RGB")
    assert np.array_equal(np.asarray(pool, float), served_pixels)
