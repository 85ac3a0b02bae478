"""What one request to a served classifier may hold and cost. Pure; MLflow calls it per request.

Whoever reaches the port can send anything, so limits are lower here than for files that a person
chose. They are checked before an image is decoded. A request that breaks one is refused as a
whole, with a status from 400 and one sentence; bytes that are no image only cost their own row.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from dermaflux.core.images import ImageError, Limits, decoding, open_image

if TYPE_CHECKING:
    import pandas as pd

IMAGES = 256
"""Per request."""
MEGABYTES = 64
"""10^6 bytes of all images of a request, decoded from base64."""
MEGAPIXELS = 100
"""Of all images of a request."""
IMAGE_MEGAPIXELS = 50
"""Of one image: about 250 MB of memory; networks are fed with 64 to 512 pixels."""
SECONDS = 20.0
"""To decode all images of a request."""
EMPTY = "the request holds no image; give at least one row"
_BASE64 = (b"/9j/", b"iVBORw0KGgo")  # how JPEG and PNG begin


class RefusedRequest(MlflowException):
    """A request that is answered with a status, an error code and one sentence."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence, error_code=BAD_REQUEST)
        self.sentence = sentence
        self.status = status

    def get_http_status_code(self) -> int:
        """400, 413 for a request that is too large, 415 for a content type that is not read."""
        return self.status

    def serialize_as_json(self) -> str:
        """The body of the answer; MLflow's own would repeat the request before the sentence."""
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


def limits() -> Limits:
    """What the images of a request that starts now may cost."""
    return Limits(IMAGE_MEGAPIXELS * 10**6, SECONDS, end=time.monotonic() + SECONDS)


def images_of(request: pd.DataFrame) -> list[bytes]:
    """The encoded images of a request, in order; raises `RefusedRequest` when it breaks a limit."""
    if "image" not in request:
        raise RefusedRequest("the request has no column image; name its one column image")
    images = [_checked(row, image) for row, image in enumerate(request["image"])]
    if not images:
        raise RefusedRequest(EMPTY)
    if len(images) > IMAGES:
        raise RefusedRequest(
            f"the request holds {len(images):,} images and {IMAGES} are the limit; send them in "
            "several requests"
        )
    size = sum(map(len, images))
    if size > MEGABYTES * 10**6:
        raise RefusedRequest(
            f"the images of the request have {math.ceil(size / 1e6):,} MB and {MEGABYTES} are the "
            "limit; send them in several requests"
        )
    pixels = _pixels(images)
    if pixels > MEGAPIXELS * 10**6:
        raise RefusedRequest(
            f"the images of the request have {math.ceil(pixels / 1e6):,} megapixels and "
            f"{MEGAPIXELS} are the limit; send them in several requests or at a smaller size"
        )
    return images


def _checked(row: int, image: object) -> bytes:
    if not isinstance(image, bytes):
        raise RefusedRequest(
            f"row {row} of the column image holds {type(image).__name__} and not an image; give "
            "the bytes of a JPEG or PNG"
        )
    if image.startswith(_BASE64):
        raise RefusedRequest(
            f"row {row} of the column image holds base64 that nothing decoded; send it as JSON in "
            "dataframe_split or dataframe_records"
        )
    return image


def _pixels(images: Sequence[bytes]) -> int:
    """Sum over the images that will be decoded, from their headers."""
    total, allowed = 0, limits()
    for image in images:
        try:
            with decoding():
                opened = open_image(image, allowed)
                total += opened.width * opened.height
        except ImageError:
            continue  # its row will say why
    return total
