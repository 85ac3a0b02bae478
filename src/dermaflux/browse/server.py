"""The server of `dermaflux browse`: Datasette on 127.0.0.1, for pages of this machine alone.

A page of the web can make a browser ask 127.0.0.1, also under a name of its own that it lets lead
here (DNS rebinding). So requests with another Host header are refused, and answers say that only
pages of this server may embed them.
"""

from __future__ import annotations

import socket
import sqlite3
import webbrowser
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from html import escape
from pathlib import Path
from typing import Any

from dermaflux.browse import index as indexes
from dermaflux.browse.index import DATABASE, IMAGES, SORTABLE
from dermaflux.errors import InputError

HOST = "127.0.0.1"
_HERE = Path(__file__).parent
_PAGE_SIZE = 50
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_COLUMNS = {
    "kind": "real, synthetic, or quarantined: left out by ingest",
    "group_size": "images in its duplicate group, including those that were left out",
    "quarantine_rule": "the rule by which ingest left it out",
    "audit_verdict": "of synthetic images: kept, or rejected and by which rule",
    "audit_ratio": "distance to training images relative to theirs; low means near",
    "scale": "pixels of the shorter side",
    "caption": "of a real image; the prompt of a synthetic one",
}
Asgi = Callable[[Mapping[str, Any], Any, Callable[[dict[str, Any]], Awaitable[None]]], Any]


def run(port: int, open_browser: bool) -> None:
    """Build the index where it is not there and serve it until Control-C.

    Raises `InputError` without Datasette, without anything to show, or when the port is taken.
    """
    try:
        import datasette.app  # noqa: F401
        import uvicorn
    except ImportError:
        raise InputError(
            'dermaflux browse needs datasette; run `pip install "dermaflux[browse]"`'
        ) from None
    with listening(port) as listener:
        index = indexes.open_index()
        app = application(index, port)
        address = f"http://{HOST}:{port}/"
        print(f"browse: {address} (Control-C stops it)", flush=True)
        if open_browser:
            webbrowser.open(address)  # the socket listens, so the browser waits for the server
        settings = uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False)
        uvicorn.Server(settings).run(sockets=[listener])


def listening(port: int) -> socket.socket:
    """A socket that listens on a port of 127.0.0.1; raises `InputError` when it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise InputError(
            f"port {port} of {HOST} cannot be used ({error.strerror}); name another with --port"
        ) from None
    return listener


def application(index: Path, port: int) -> Asgi:
    """The ASGI application over an index: Datasette with the plugin, for this machine alone."""
    from datasette.app import Datasette
    from datasette.plugins import pm

    from dermaflux.browse import images, plugin

    if not pm.is_registered(plugin):
        pm.register(plugin, plugin.NAME)
    data, guess = images.data_folder()
    problems = [*indexes.problems(index), *([guess] if guess else [])]
    datasette = Datasette(
        immutables=[str(index)],
        metadata=_metadata(problems, indexes.missing()),
        inspect_data=_inspected(index),
        template_dir=str(_HERE / "templates"),
        static_mounts=[("browse", str(_HERE / "static"))],
        settings={
            "default_page_size": _PAGE_SIZE,
            "suggest_facets": False,
            "facet_time_limit_ms": 150,
            "allow_download": False,
            "num_sql_threads": 4,
        },
    )
    sortable = {name: facts.get("sortable_columns", ()) for name, facts in _tables().items()}
    shown = plugin.Shown(images.Images(data), index.parent.name, _columns(index), sortable)
    shown.give(datasette)
    return only_this_machine(datasette.app(), port)


def _tables() -> dict[str, dict[str, Any]]:
    """What Datasette is told of each table."""
    return {
        IMAGES: {
            "title": "Images of this run",
            "sortable_columns": ["row", *SORTABLE],
            "columns": _COLUMNS,
            "fts_table": "captions",
            "fts_pk": "row",
        },
        "duplicate_groups": {
            "title": "Duplicate groups",
            "sort_desc": "images",
            "sortable_columns": ["duplicate_group", "images", "quarantined"],
        },
        "neighbours": {
            "title": "Synthetic images beside the training images nearest to them",
            "sort": "ratio",
            "sortable_columns": ["pair", "image_id", "ratio"],
        },
        **{name: {"hidden": True} for name in ("places", "counts", "problems")},
    }


def _metadata(problems: Sequence[str], missing: Sequence[str]) -> dict[str, Any]:
    told = [f'<p class="message-error">{escape(problem)}</p>' for problem in problems]
    told += [f'<p class="message-warning">{escape(sentence)}</p>' for sentence in missing]
    told.append(
        f'<p>See also the <a href="/{DATABASE}/duplicate_groups">duplicate groups</a> and the '
        f'<a href="/{DATABASE}/neighbours">synthetic images nearest to training images</a>.</p>'
    )
    tables = _tables()
    tables[IMAGES]["description_html"] = "".join(told)
    return {
        "title": "DermaFlux",
        "extra_css_urls": ["/browse/page.css"],
        "extra_js_urls": ["/browse/names.js"],
        "databases": {DATABASE: {"title": "Tables of this run", "tables": tables}},
    }


def _columns(index: Path) -> dict[str, list[str]]:
    """Table -> its columns, of those that have a page."""
    with closing(_opened(index)) as database:
        return {
            name: [line[1] for line in database.execute(f"pragma table_info([{name}])")]
            for name in _tables()
        }


def _opened(index: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)


def _count(database: sqlite3.Connection, table: str) -> int:
    """Rows of a table of the index, whose name the index gave."""
    row = database.execute(f"select count(*) from [{table}]").fetchone()  # nosec
    return int(row[0])


def _inspected(index: Path) -> dict[str, Any]:
    """What Datasette would otherwise count and hash on the first page."""
    with closing(_opened(index)) as database:
        names = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        counts = {name: {"count": _count(database, name)} for (name,) in names}
    about = {"hash": index.parent.name, "size": index.stat().st_size, "file": index.name}
    return {DATABASE: {**about, "tables": counts}}


def only_this_machine(app: Asgi, port: int) -> Asgi:
    """Refuse requests under another name than 127.0.0.1 or localhost; forbid others to embed it."""
    allowed = {f"{name}:{port}".encode() for name in (HOST, "localhost")}

    async def guarded(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        named = [value for name, value in scope["headers"] if name == b"host"]
        if len(named) != 1 or named[0].lower() not in allowed:
            text = f"this server answers as http://{HOST}:{port}/ only\n".encode()
            headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
            await send({"type": "http.response.start", "status": 421, "headers": headers})
            await send({"type": "http.response.body", "body": text})
            return

        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        await app(scope, receive, send_with_policy)

    return guarded
