"""Errors of the hub's client and of the loaders become one sentence with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from httpx2 import Request, Response
from huggingface_hub.utils import hf_raise_for_status

from dermaflux.core.hub import opening
from dermaflux.errors import InputError


def hub_error(code: str, status: int) -> Exception:
    """What the hub's own client raises for a response of the hub."""
    request = Request("GET", "https://huggingface.co/api/models/team/model")
    try:
        hf_raise_for_status(Response(status, headers={"X-Error-Code": code}, request=request))
    except Exception as error:
        return error
    raise AssertionError("the client accepts the response")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            hub_error("GatedRepo", 403),
            "accept its licence on https://huggingface.co/team/model and run `hf auth login`",
        ),
        (hub_error("RevisionNotFound", 404), "has no revision abc; name a commit of it"),
        (hub_error("RepoNotFound", 401), "neither a folder nor a repository this login can see"),
        (
            ValueError("no index\nin this file. A long explanation"),
            "cannot be opened (no index in this file); download it again",
        ),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_reason_is_found_below_what_a_loader_wraps_around_it(
    error: Exception, sentence: str, wrapped: bool
) -> None:
    def load() -> None:
        try:
            raise error
        except Exception as cause:
            if wrapped and not isinstance(error, ValueError):
                raise OSError("We couldn't connect. Check your connection.") from cause
            raise

    with (
        pytest.raises(InputError) as caught,
        opening("backbone.source", "team/model", "abc", "folder", "download it again"),
    ):
        load()
    message = str(caught.value)
    assert message.startswith("backbone.source team/model ")
    assert sentence in message
    assert "\n" not in message


def test_other_errors_pass_and_a_missing_folder_does_not(tmp_path: Path) -> None:
    with pytest.raises(KeyError), opening("name", "x", None, "folder", "mend it"):
        raise KeyError("x")
    with (
        pytest.raises(InputError, match=r"^name x cannot be opened .*missing.*; mend it$"),
        opening("name", "x", None, "folder", "mend it"),
    ):
        (tmp_path / "missing").read_bytes()
