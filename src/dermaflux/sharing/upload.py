"""`dermaflux push-to-hub`: a package as a repository of the Hugging Face Hub, private by default.

The hub, the login and the token are those of the hub's client: `HF_ENDPOINT`, `hf auth login`,
`HF_TOKEN`.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.errors import InputError, causes, one_line, quoted
from dermaflux.params import Params
from dermaflux.sharing import package

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def run(params: Params, name: str, repository: str, public: bool = False) -> None:
    """Push the package `name` in one commit, and print its address.

    A new repository is private unless `public`. Raises `InputError` before anything leaves this
    machine when the name is none or its licences forbid it, and when the hub refuses.
    """
    chosen = package.find(name)
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", repository):
        raise InputError(
            f"{quoted(repository)} is not a repository on the hub; write it as OWNER/NAME"
        )
    reason = chosen.refused(params) if public else None
    if reason is not None:
        raise InputError(f"{name} must not be public: {reason}")
    from huggingface_hub import HfApi, get_token

    api = HfApi()
    if get_token() is None:
        raise InputError(
            f"there is no login for {api.endpoint}; run `hf auth login`, or set HF_TOKEN to a "
            "token with write access"
        )
    prefix = "datasets/" if chosen.kind == "dataset" else ""
    url = f"{api.endpoint}/{prefix}{repository}"
    # Hard links need the disk of the project.
    with tempfile.TemporaryDirectory(dir=_scratch()) as scratch:
        folder = Path(scratch) / name
        package.run(params, name, folder, url)
        _push(api, chosen.kind, repository, folder, public)
    print(f"push-to-hub: {name} in {url}, {'public' if public else 'private'}")


def _scratch() -> Path:
    folder = Path(".dermaflux") / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _push(api: HfApi, kind: str, repository: str, folder: Path, public: bool) -> None:
    try:
        api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True)
        is_private = api.repo_info(repository, repo_type=kind).private
        if is_private == public:
            raise InputError(
                f"{repository} is already there and {'private' if is_private else 'public'}; "
                + ("leave --public out" if is_private else "add --public to push to it")
                + ", or name a new repository"
            )
        api.upload_folder(
            repo_id=repository,
            repo_type=kind,
            folder_path=folder,
            commit_message=f"{folder.name} by dermaflux",
            # Shards of an earlier push, of which there may have been more.
            delete_patterns=["data/*.parquet"] if kind == "dataset" else None,
        )
    except Exception as error:
        raise _sentence(error, api.endpoint, repository) from None


def _sentence(error: Exception, endpoint: str, repository: str) -> Exception:
    """What to raise for an exception of the hub's client; others as they are."""
    from huggingface_hub.errors import HfHubHTTPError

    kinds = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    if isinstance(error, InputError) or not kinds & {"huggingface_hub", "httpx2", "httpx"}:
        return error
    statuses = [
        cause.response.status_code
        for cause in causes(error)
        if isinstance(cause, HfHubHTTPError) and cause.response is not None
    ]
    status = statuses[0] if statuses else 0
    reason = f"HTTP {status}" if status else one_line(str(error), 200)
    if status in (401, 403):
        fix = f"log in with `hf auth login` as somebody with write access to {repository}"
    elif 400 <= status < 500:
        fix = f"correct what it refuses: {one_line(str(error), 300)}"
    else:
        fix = "check the network, or HF_ENDPOINT, and run the command again"
    return InputError(f"{endpoint} does not accept {repository} ({reason}); {fix}")
