from __future__ import annotations

import io

import pytest
import rich.console

from dermaflux.progress import progress


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_count_and_message_and_a_file_nothing(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    screen = io.StringIO()
    console = rich.console.Console(file=screen, force_terminal=terminal, width=120)
    monkeypatch.setattr(rich.console, "Console", lambda: console)
    with progress("ingest.images", 2000, done=500) as advance:
        for _ in range(3):
            advance(100, "loss 0.1234")
    text = screen.getvalue()
    for part in ("ingest.images", "800/2000", "loss 0.1234"):
        assert (part in text) == terminal
    if not terminal:
        assert text.strip() == ""
