"""Repositories of the Hugging Face hub and local copies: commit, licence, errors as one sentence.

Reads the hub's cache and model cards, writes nothing of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dermaflux.errors import InputError, causes, one_line, quoted

_COMMIT = re.compile(r"[0-9a-f]{40}")


def unpinned(parameter: str, repository: str, revision_parameter: str, kind: str = "folder") -> str:
    """The sentence that refuses a hub repository of which no revision is named."""
    return (
        f"{parameter} {quoted(repository)} is not a {kind} here and, as a hub repository, has no "
        f"{revision_parameter}; correct the path, or pin the commit to use, as its page on the hub "
        "shows it under Files"
    )


def commit(parameter: str, repository: str, revision: str, file: str, instead: str) -> str:
    """Full hash of the commit that a revision of a hub repository stands for.

    A full hash stands for itself. A branch or a tag may move, so the hub's client looks it up: at
    the hub, or offline in its cache, where the folder of a snapshot has the commit as its name.
    `file` is a small file at the top of every repository of the kind; `parameter` and `instead` are
    those of `opening`. Raises `InputError` where the revision cannot be looked up.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import hf_hub_download

    with opening(parameter, repository, revision, "folder", instead):
        return Path(hf_hub_download(repository, file, revision=revision)).parent.name


@contextmanager
def opening(
    parameter: str, repository: str, revision: str | None, local: str, instead: str
) -> Iterator[None]:
    """Turn what the hub's client and the loaders raise into one sentence that names the fix.

    `parameter` is the setting that names `repository`; `local` is what else it may name, file or
    folder; `instead` is the fix when the hub reports no reason of its own.
    """
    from huggingface_hub import errors
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError, errors.HfHubHTTPError) as error:
        # The loaders wrap the hub client's exceptions, and only those tell gated from missing.
        kinds = {type(cause) for cause in causes(error)}
        if errors.GatedRepoError in kinds:
            reason = (
                f"is gated; accept its licence on https://huggingface.co/{repository} and run "
                "`hf auth login`"
            )
        elif errors.RevisionNotFoundError in kinds:
            reason = f"has no revision {revision}; name a commit of it"
        elif errors.RepositoryNotFoundError in kinds:
            reason = (
                f"is neither a {local} nor a repository this login can see; correct the name, or "
                "run `hf auth login`"
            )
        else:
            summary = one_line(str(error).split(". ")[0], 200)
            reason = f"cannot be opened ({summary}); {instead}"
        raise InputError(f"{parameter} {repository} {reason}") from None


def licence(folder: Path) -> str | None:
    """What the model card of a local copy states as its licence; None where it states none."""
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    if not card.is_file():
        return None
    stated = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
    return str(stated) if stated else None
