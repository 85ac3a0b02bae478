"""Answers of vision-language models that are already paid for, and the model that recalls them.

Reads and writes `.dermaflux/answers/answers.sqlite` of the main checkout. Rows are only ever added,
each in a transaction of its own, so an answer that was received survives whatever happens next.
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

from dermaflux.captions.vlm.client import Answer, Question, Vision
from dermaflux.errors import InputError
from dermaflux.paths import project_root

_AHEAD = 4096  # questions looked at beyond the answer that is due; more than any model has open
_CHARACTERS_PER_TOKEN = 3  # fewer than English has, so that costs are not foreseen too low
_TABLE = (
    "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, model TEXT, text TEXT, "
    "prompt_tokens INTEGER, completion_tokens INTEGER, finish TEXT) WITHOUT ROWID"
)


def default_file() -> Path:
    """The store of this checkout; queued experiments share it."""
    return project_root() / ".dermaflux" / "answers" / "answers.sqlite"


class Paid:
    """Answers by sha256 of content hash, prompt, model and sampling settings."""

    def __init__(self, file: Path, model: str, settings: Mapping[str, Any]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._about = json.dumps([model, dict(settings)], sort_keys=True)
        self._model = model
        self._lock = threading.Lock()
        # Answers arrive on the thread of the network; the lock serialises both.
        self._store = sqlite3.connect(
            file, timeout=60, isolation_level=None, check_same_thread=False
        )
        # A write-ahead log: a commit costs no wait for the disk, and kill -9 loses none.
        self._store.execute("PRAGMA journal_mode=WAL")
        self._store.execute("PRAGMA synchronous=NORMAL")
        self._store.execute(_TABLE)
        self.tokens = 0
        """Prompt and completion tokens of the answers this object has added."""

    def key(self, question: Question) -> bytes:
        """Key under which the answer to a question is kept."""
        return hashlib.sha256(f"{question.key}\0{question.text}\0{self._about}".encode()).digest()

    def get(self, key: bytes) -> Answer | None:
        """The answer, or None when it was never received."""
        with self._lock:
            row = self._store.execute(
                "SELECT text, prompt_tokens, completion_tokens, finish FROM answers WHERE key = ?",
                (key,),
            ).fetchone()
        return None if row is None else Answer(*row)

    def keep(self, question: Question, answer: Answer) -> None:
        """Add an answer; the first one to a question stays."""
        self.keep_as(self.key(question), answer)

    def keep_as(self, key: bytes, answer: Answer) -> None:
        """`keep` for a key that is known already."""
        if answer.finish == "refusal" and not answer.completion_tokens:
            return  # the server answered nothing, so nothing was paid and it may be asked again
        row = (answer.text, answer.prompt_tokens, answer.completion_tokens, answer.finish)
        with self._lock:
            added = self._store.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", (key, self._model, *row)
            ).rowcount
            if added:
                self.tokens += answer.prompt_tokens + answer.completion_tokens

    def means(self) -> tuple[int, float, float]:
        """(answers of this model, their mean prompt tokens, their mean completion tokens)."""
        with self._lock:
            count, prompt, completion = self._store.execute(
                "SELECT count(*), avg(prompt_tokens), avg(completion_tokens) FROM answers "
                "WHERE model = ?",
                (self._model,),
            ).fetchone()
        return count, prompt or 0.0, completion or 0.0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._store.close()


class Remembered:
    """A `Vision` that asks another only what was never answered, within a token budget."""

    def __init__(self, vision: Vision, paid: Paid, maximum_tokens: int, budget: int | None) -> None:
        self.name = vision.name
        self._vision, self._paid = vision, paid
        self._checked = False
        self._maximum, self._budget = maximum_tokens, budget
        self._overhead: int | None = None  # most prompt tokens beyond those of the text

    def check(self) -> None:
        """Preflight of the model behind, once."""
        if not self._checked:
            self._vision.check()
            self._checked = True

    def answers(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answers in order; the model is checked before the first question that is new to it.

        Raises `InputError` when the check fails, and at the budget after all that was asked is
        kept.
        """
        stream = iter(questions)
        waiting: deque[tuple[bytes, int | None]] = deque()  # length of the text, if asked
        asked: set[bytes] = set()
        held: Question | None = None
        ended = spent = False

        def unknown() -> Iterator[Question]:
            # Ends early after a long row of known answers, so that they can be handed out.
            nonlocal ended, spent, held
            while len(waiting) < _AHEAD:
                question, held = held or next(stream, None), None
                if question is None:
                    ended = True
                    return
                key = self._paid.key(question)
                ask = key not in asked and self._paid.get(key) is None
                if ask and not self._affords(question, len(asked)):
                    # Only when nothing is open is it known what the answers have cost.
                    held, spent = question, not asked
                    return
                waiting.append((key, len(question.text) if ask else None))
                if ask:
                    self.check()
                    asked.add(key)
                    yield question

        fresh: dict[bytes, Answer] = {}  # refusals, which are not kept, for a repeated question
        while not (ended or spent) or waiting:
            for answer in self._vision.answers(unknown()):
                while waiting[0][1] is None:
                    yield self._known(waiting.popleft()[0], fresh)
                key, characters = waiting.popleft()
                text_tokens = (characters or 0) // _CHARACTERS_PER_TOKEN
                self._overhead = max(self._overhead or 0, answer.prompt_tokens - text_tokens)
                self._paid.keep_as(key, answer)
                asked.discard(key)
                if self._paid.get(key) is None:
                    fresh[key] = answer
                yield answer
            while waiting:
                yield self._known(waiting.popleft()[0], fresh)
        if spent:
            raise InputError(
                f"caption.token_budget {self._budget:,} is spent ({self._paid.tokens:,} tokens "
                "paid, all answers kept); raise it or run again to continue where this run stopped"
            )

    def _known(self, key: bytes, fresh: Mapping[bytes, Answer]) -> Answer:
        return self._paid.get(key) or fresh[key]

    def _affords(self, question: Question, open_requests: int) -> bool:
        """Whether one more request fits, when all that are open cost what this one may."""
        if self._budget is None:
            return True
        if self._overhead is None:
            return open_requests == 0  # the first one tells what an image costs
        each = len(question.text) // _CHARACTERS_PER_TOKEN + self._overhead + self._maximum
        return self._paid.tokens + (open_requests + 1) * each <= self._budget
