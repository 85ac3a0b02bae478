"""A check that passed once is not repeated: Great Expectations takes seconds to load.

Cells of one seed train on the same images whatever their architecture, and every run of a grid
checks the arms it shares with others. Reads and writes `.dermaflux/cache/checks/` of the main
checkout: one empty file for each table, by content, that passed all its checks without a warning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from dermaflux.core.checkpoints import fingerprint
from dermaflux.paths import project_root
from dermaflux.validation import validate
from dermaflux.validation.checks import Check

if TYPE_CHECKING:
    import pandas as pd


def check(suite: str, frame: pd.DataFrame, checks: Sequence[Check]) -> None:
    """`validate.check`, unless this very table has passed these very checks before.

    Raises `InputError` like it; a table that failed or gave a warning is checked each time.
    """
    import pandas as pd

    rows = pd.util.hash_pandas_object(frame, index=False)
    key = fingerprint(
        suite=suite,
        rows=hashlib.sha256(rows.to_numpy().tobytes()).hexdigest(),
        columns=[f"{name} {dtype}" for name, dtype in frame.dtypes.items()],
        checks=[repr(item) for item in checks],
        library=version("great-expectations"),
    )
    passed = project_root() / ".dermaflux" / "cache" / "checks" / key
    if passed.exists():
        return
    if not validate.check(suite, frame, checks):
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()
