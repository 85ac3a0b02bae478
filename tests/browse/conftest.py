from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import browsed_run
import httpx
import pytest

from dermaflux.browse import index, server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    browsed_run.write_checkout()
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Path:
    """The checkout after the stages."""
    browsed_run.write_corpus()
    browsed_run.write_pool()
    return folder


@pytest.fixture
def get() -> Callable[[], browsed_run.Get]:
    """Builds the index of the working directory; gives what asks its server for an address."""

    def start() -> browsed_run.Get:
        app = server.application(index.open_index(), 8001)

        def ask(address: str, host: str = "127.0.0.1:8001") -> httpx.Response:
            async def answer() -> httpx.Response:
                transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
                async with httpx.AsyncClient(
                    transport=transport, base_url=f"http://{host}"
                ) as client:
                    return await client.get(address)

            return asyncio.run(answer())

        return ask

    return start
