"""How a served classifier reads requests and answers them: `mlflow models serve`.

MLflow's server answers some requests before a model sees them, with a traceback, plain text or
status 500: JSON that is nested deeply, numbers of 5,000 digits, no content type, CSV, base64 in
`instances`. It has no hook for that, so the loader of a served classifier puts `invocations` in
the place of MLflow's function of that name. Everything else of the server stays MLflow's.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from dermaflux.errors import quoted
from dermaflux.registry.request_limits import EMPTY, MEGABYTES, RefusedRequest

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel
    from mlflow.pyfunc.scoring_server import InvocationsResponse

_BODY = MEGABYTES * 2_000_000  # bytes; base64 takes a third more than what it encodes
_VALUES = 20_000  # of JSON, since small ones need far more memory than text
_FORM = 'send {"dataframe_split": {"columns": ["image"], "data": [["<base64>"]]}}'
_log = logging.getLogger(__name__)


def install() -> None:
    """Answer the requests of this process, if it is MLflow's scoring server."""
    server = sys.modules.get("mlflow.pyfunc.scoring_server")
    if server is not None and "mlflow.pyfunc.scoring_server.app" in sys.modules:
        server.invocations = invocations  # type: ignore[attr-defined]


def invocations(
    data: bytes, content_type: str | None, model: PyFuncModel, input_schema: object
) -> InvocationsResponse:
    """Predictions of one request, or one JSON object with `error_code` and `message`."""
    import pandas as pd
    from mlflow.pyfunc.scoring_server import InvocationsResponse

    try:
        images = images_in(data, content_type)
        rows: Any = model.predict(pd.DataFrame({"image": images}))
        body = {"predictions": rows.to_dict("records")}
        return InvocationsResponse(json.dumps(body), 200, "application/json")
    except RefusedRequest as error:
        status, answer = error.status, error.serialize_as_json()
        return InvocationsResponse(answer, status, "application/json")
    except Exception:
        _log.exception("the prediction failed")
        failed = {"error_code": "INTERNAL_ERROR", "message": "the prediction failed; see the log"}
        return InvocationsResponse(json.dumps(failed), 500, "application/json")


def images_in(body: bytes, content_type: str | None) -> list[bytes]:
    """The bytes of the images in the body of a request; raises `RefusedRequest`."""
    kind, _, parameters = (content_type or "").partition(";")
    charset = parameters.partition("charset=")[2].strip(' "').lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise RefusedRequest(
            f"the content type {quoted(content_type)} is not supported; send application/json", 415
        )
    if len(body) > _BODY:
        raise RefusedRequest(
            f"the request has {len(body):,} bytes and {_BODY:,} are the limit; send its images in "
            "several requests",
            413,
        )
    cells = _cells(_parsed(body))
    if not cells:
        raise RefusedRequest(EMPTY)
    return [_decoded(row, cell) for row, cell in enumerate(cells)]


def _parsed(body: bytes) -> dict[str, Any]:
    if sum(body.count(sign) for sign in (b",", b"[", b"{")) > _VALUES:
        raise RefusedRequest(f"the request has more than {_VALUES:,} values, the limit; {_FORM}")
    try:
        content = json.loads(body.decode("utf-8-sig"))
    except RecursionError:
        raise RefusedRequest(f"the JSON of the request is nested too deeply; {_FORM}") from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of too many digits
        detail = quoted(" ".join(str(error).split()))
        raise RefusedRequest(f"the request is not JSON ({detail}); {_FORM}") from None
    if not isinstance(content, dict):
        raise RefusedRequest(f"the request is not a JSON object; {_FORM}")
    return content


def _cells(content: dict[str, Any]) -> list[Any]:
    """The column `image` of a request, in either of two forms."""
    forms = [name for name in ("dataframe_split", "dataframe_records") if name in content]
    if len(forms) != 1 or {"instances", "inputs"} & set(content):
        raise RefusedRequest(f"the request has the fields {quoted(list(content))}; {_FORM}")
    table = content[forms[0]]
    if forms == ["dataframe_records"]:
        if not isinstance(table, list) or not all(
            isinstance(row, dict) and "image" in row for row in table
        ):
            raise RefusedRequest(
                'dataframe_records is not a list of {"image": "<base64>"}; '
                "write every row in this form"
            )
        return [row["image"] for row in table]
    columns = table.get("columns") if isinstance(table, dict) else None
    rows = table.get("data") if isinstance(table, dict) else None
    if not isinstance(columns, list) or columns.count("image") != 1 or not isinstance(rows, list):
        raise RefusedRequest(f"dataframe_split has no data in one column image; {_FORM}")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise RefusedRequest(
                f"row {number} of dataframe_split is not a list of {len(columns)} values, as there "
                "are columns; give every row its values"
            )
    return [row[columns.index("image")] for row in rows]


def _decoded(row: int, cell: object) -> bytes:
    """Strictly decoded base64, which may be broken into lines."""
    if isinstance(cell, str):
        try:
            return base64.b64decode("".join(cell.split()), validate=True)
        except ValueError:
            pass
    raise RefusedRequest(
        f"row {row} of the column image is {quoted(cell)} and not base64; encode the JPEG or PNG, "
        "for example with `base64 -w0 lesion.jpg`"
    )
