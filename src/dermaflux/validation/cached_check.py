"""A border that was crossed once is not checked again: Great Expectations takes seconds to load.

Cells of one seed draw the same images whatever their architecture, and every experiment of a sweep
crosses the border with the arms it shares. Reads and writes `.dermaflux/cache/borders/` of the main
checkout: one empty file for each table, by content, that kept all its promises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from dermaflux.core.checkpoints import fingerprint
from dermaflux.paths import project_root
from dermaflux.validation import validate
from dermaflux.validation.checks import Promise

if TYPE_CHECKING:
    import pandas as pd


def check(suite: str, frame: pd.DataFrame, promises: Sequence[Promise]) -> None:
    """`validate.check`, unless this very table has kept these very promises before.

    Raises `InputError` like it; what broke a promise or warned is checked each time.
    """
    import pandas as pd

    rows = pd.util.hash_pandas_object(frame, index=False)
    key = fingerprint(
        suite=suite,
        rows=hashlib.sha256(rows.to_numpy().tobytes()).hexdigest(),
        columns=[f"{name} {kind}" for name, kind in frame.dtypes.items()],
        promises=[repr(one) for one in promises],
        library=version("great-expectations"),
    )
    crossed = project_root() / ".dermaflux" / "cache" / "borders" / key
    if crossed.exists():
        return
    if not validate.check(suite, frame, promises):
        crossed.parent.mkdir(parents=True, exist_ok=True)
        crossed.touch()
