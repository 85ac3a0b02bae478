"""Responses of vision-language models that are paid for, and a model that reuses them.

Reads and writes `.dermaflux/answers/answers.sqlite` of the main checkout. Rows are only ever added,
each in its own transaction, so a response that was received survives whatever happens next.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dermaflux.captions.vlm.client import VLM, Request, Response
from dermaflux.errors import InputError
from dermaflux.paths import project_root

_LOOKAHEAD = 4096  # requests read beyond the response that is due; more than any model has open
_CHARACTERS_PER_TOKEN = 3  # fewer than English has, so that costs are never underestimated
_TABLE = (
    "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, model TEXT, text TEXT, "
    "prompt_tokens INTEGER, completion_tokens INTEGER, finish TEXT) WITHOUT ROWID"
)

_COLUMNS = ["key", "model", "text", "prompt_tokens", "completion_tokens", "finish"]


def default_file() -> Path:
    """The cache of this checkout; queued experiments share it."""
    return project_root() / ".dermaflux" / "answers" / "answers.sqlite"


class AnswerCache:
    """Responses by SHA-256 of content hash, prompt, model and sampling settings."""

    def __init__(self, file: Path, model: str, settings: Mapping[str, Any]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._key_suffix = json.dumps([model, dict(settings)], sort_keys=True)
        self._model = model
        self._lock = threading.Lock()
        # Responses arrive on the network thread; the lock serialises both.
        self._database = _open(file)
        self.tokens = 0
        """Prompt and completion tokens of the responses this object has added."""

    def key(self, request: Request) -> bytes:
        """Key under which the response to a request is stored."""
        parts = f"{request.key}\0{request.text}\0{self._key_suffix}"
        return hashlib.sha256(parts.encode()).digest()

    def get(self, key: bytes) -> Response | None:
        """The response, or None when it was never received."""
        with self._lock:
            row = self._database.execute(
                "SELECT text, prompt_tokens, completion_tokens, finish FROM answers WHERE key = ?",
                (key,),
            ).fetchone()
        return None if row is None else Response(*row)

    def add(self, request: Request, response: Response) -> None:
        """Store a response; the first one to a request stays."""
        self.add_by_key(self.key(request), response)

    def add_by_key(self, key: bytes, response: Response) -> None:
        """`add` for a key that is known already."""
        if response.finish == "refusal" and not response.completion_tokens:
            return  # the server generated nothing, so nothing was paid and a retry is free
        row = (
            response.text,
            response.prompt_tokens,
            response.completion_tokens,
            response.finish,
        )
        with self._lock:
            added = self._database.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", (key, self._model, *row)
            ).rowcount
            if added:
                self.tokens += response.prompt_tokens + response.completion_tokens

    def means(self) -> tuple[int, float, float]:
        """(responses of this model, mean prompt tokens, mean completion tokens)."""
        with self._lock:
            count, prompt, completion = self._database.execute(
                "SELECT count(*), avg(prompt_tokens), avg(completion_tokens) FROM answers "
                "WHERE model = ?",
                (self._model,),
            ).fetchone()
        return count, prompt or 0.0, completion or 0.0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def _open(file: Path) -> sqlite3.Connection:
    """The database; one that is damaged is kept under another name, since its rows were paid."""
    try:
        return _connection(file)
    except sqlite3.OperationalError:
        raise  # locked, or a full disk: the file is whole
    except sqlite3.DatabaseError as error:
        kept = file.with_name(f"{file.name}.damaged")
        print(
            f"{file} is damaged ({error}); it is kept as {kept.name}, from which sqlite3's "
            "`.recover` may save answers, and captions are asked for again",
            flush=True,
        )
        file.rename(kept)
        for beside in ("-wal", "-shm"):
            file.with_name(file.name + beside).unlink(missing_ok=True)
        return _connection(file)


def _connection(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
    try:
        # A write-ahead log: a commit does not wait for the disk, and kill -9 loses nothing.
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(_TABLE)
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))
        columns = [row[1] for row in database.execute("PRAGMA table_info(answers)")]
        if columns != _COLUMNS:
            raise sqlite3.DatabaseError(f"it has the columns {', '.join(columns)}")
    except sqlite3.Error:
        database.close()
        raise
    return database


class CachedVLM:
    """A `VLM` that passes on only requests without a cached response, within a token budget."""

    def __init__(self, vlm: VLM, cache: AnswerCache, maximum_tokens: int, budget: int | None):
        self.name = vlm.name
        self._vlm, self._cache = vlm, cache
        self._checked = False
        self._maximum, self._budget = maximum_tokens, budget
        self._overhead: int | None = None  # most prompt tokens beyond those of the text

    def check(self) -> None:
        """Preflight of the wrapped model, once."""
        if not self._checked:
            self._vlm.check()
            self._checked = True

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Responses in order; the model is checked before the first request that is not cached.

        Raises `InputError` when the check fails, and at the budget once every response that was
        requested is stored.
        """
        stream = iter(requests)
        waiting: deque[tuple[bytes, int | None]] = deque()  # length of the text, if passed on
        pending: set[bytes] = set()
        postponed: Request | None = None
        ended = spent = False

        def uncached() -> Iterator[Request]:
            # Ends early after a long run of cached responses, so that they can be handed out.
            nonlocal ended, spent, postponed
            while len(waiting) < _LOOKAHEAD:
                request, postponed = postponed or next(stream, None), None
                if request is None:
                    ended = True
                    return
                key = self._cache.key(request)
                new = key not in pending and self._cache.get(key) is None
                if new and not self._affords(request, len(pending)):
                    # The cost of the responses is known only when none is pending.
                    postponed, spent = request, not pending
                    return
                waiting.append((key, len(request.text) if new else None))
                if new:
                    self.check()
                    pending.add(key)
                    yield request

        uncacheable: dict[bytes, Response] = {}  # refusals, for a request that is repeated
        while not (ended or spent) or waiting:
            for response in self._vlm.generate(uncached()):
                while waiting[0][1] is None:
                    yield self._cached(waiting.popleft()[0], uncacheable)
                key, characters = waiting.popleft()
                text_tokens = (characters or 0) // _CHARACTERS_PER_TOKEN
                self._overhead = max(self._overhead or 0, response.prompt_tokens - text_tokens)
                self._cache.add_by_key(key, response)
                pending.discard(key)
                if self._cache.get(key) is None:
                    uncacheable[key] = response
                yield response
            while waiting:
                yield self._cached(waiting.popleft()[0], uncacheable)
        if spent:
            raise InputError(
                f"runtime.caption.token_budget {self._budget:,} is spent ({self._cache.tokens:,} "
                "tokens paid, all responses stored); raise it or run again to continue where this "
                "run stopped"
            )

    def _cached(self, key: bytes, uncacheable: Mapping[bytes, Response]) -> Response:
        return self._cache.get(key) or uncacheable[key]

    def _affords(self, request: Request, pending: int) -> bool:
        """Whether one more request fits if every pending one costs what this one may."""
        if self._budget is None:
            return True
        if self._overhead is None:
            return pending == 0  # the first response shows what an image costs
        each = len(request.text) // _CHARACTERS_PER_TOKEN + self._overhead + self._maximum
        return self._cache.tokens + (pending + 1) * each <= self._budget
