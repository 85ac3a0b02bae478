"""A progress line with rate and time left, for loops over images and training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dermaflux.errors import one_line


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yield `advance(items, message="")`; the line is shown on a terminal only."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.{0 if speed >= 10 else 2}f}/s" if speed else "")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    console = Console()
    with Progress(
        *columns,
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(one_line(what, 100), total=total, completed=done, message="")
        yield lambda items, message="": bar.update(task, advance=items, message=message)
