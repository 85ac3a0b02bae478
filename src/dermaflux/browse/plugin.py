"""What the page adds to Datasette: images, links between rows and the page of one image.

A Datasette plugin: the functions marked `hookimpl` are called by it. The server gives each
Datasette what it shows, as `Shown`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from datasette import hookimpl
from datasette.app import Datasette
from datasette.utils.asgi import NotFound, Request, Response
from markupsafe import Markup

from dermaflux.browse import detail
from dermaflux.browse.arguments import usable
from dermaflux.browse.facets import CountedFacet
from dermaflux.browse.images import THUMBNAIL, Images, NoImage, Place, drawn
from dermaflux.browse.index import DATABASE, IMAGES

NAME = "dermaflux-browse"
_IDS = ("image_id", "nearest_id", "original_id")
_MISSING_SIDE = 256
_LEFT_OUT = "dermaflux.left_out"
Asgi = Callable[[Mapping[str, Any], Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Shown:
    """What one server shows."""

    images: Images
    version: str
    """Of the index; in the addresses of images, so that browsers may keep them."""
    columns: Mapping[str, Sequence[str]]
    """Table -> its columns."""
    sortable: Mapping[str, Sequence[str]]
    """Table -> the columns that it may be sorted by."""

    def give(self, datasette: Datasette) -> None:
        """Let the plugin show this in one Datasette."""
        datasette.dermaflux_browse = self


def _shown(datasette: Datasette) -> Shown:
    shown: Shown = datasette.dermaflux_browse
    return shown


@hookimpl  # type: ignore[untyped-decorator]
def prepare_connection(conn: sqlite3.Connection) -> None:
    """Read the index through the system's cache of pages, without a copy."""
    conn.execute("pragma mmap_size = 4294967296")


@hookimpl  # type: ignore[untyped-decorator]
def asgi_wrapper(datasette: Datasette) -> Callable[[Asgi], Asgi]:
    """Take arguments that cannot be used from the addresses of tables, and keep why not."""

    def wrap(app: Asgi) -> Asgi:
        async def checked(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
            parts = scope["path"].split("/") if scope["type"] == "http" else []
            if len(parts) == 3 and parts[1] == DATABASE:
                shown = _shown(datasette)
                columns = shown.columns.get(parts[2])
                if columns is not None:
                    query, problems = usable(
                        scope["query_string"].decode("latin-1"),
                        columns,
                        shown.sortable.get(parts[2], columns),
                    )
                    if problems:
                        scope = {**scope, "query_string": query.encode(), _LEFT_OUT: problems}
            await app(scope, receive, send)

        return checked

    return wrap


@hookimpl  # type: ignore[untyped-decorator]
def register_facet_classes() -> list[type[CountedFacet]]:
    """Counts of all columns by one query."""
    return [CountedFacet]


@hookimpl  # type: ignore[untyped-decorator]
def register_routes(datasette: Datasette) -> list[tuple[str, Callable[..., Any]]]:
    """`/` leads to the table; `/-/image/ROW` and `/-/thumbnail/ROW` are images."""
    return [
        (r"^/$", lambda: Response.redirect(f"/{DATABASE}/{IMAGES}")),
        (r"^/-/(?P<size>image|thumbnail)/(?P<row>\d{1,12})$", _of_row),
        (r"^/-/thumbnail$", _of_id),
    ]


async def _of_row(request: Request, datasette: Datasette) -> Response:
    return await _image(request, datasette, int(request.url_vars["row"]))


async def _of_id(request: Request, datasette: Datasette) -> Response:
    found = await datasette.get_database(DATABASE).execute(
        "select row from images where image_id = ? order by kind = 'quarantined', row limit 1",
        [request.args.get("image_id") or ""],
    )
    if not found.rows:
        picture = drawn("no table holds this image", THUMBNAIL)
        return Response(picture.content, content_type=picture.content_type)
    return await _image(request, datasette, found.rows[0]["row"])


async def _image(request: Request, datasette: Datasette, row: int) -> Response:
    shown = _shown(datasette)
    place = await place_of(datasette, row)
    whole = request.url_vars.get("size") == "image"
    show = shown.images.full if whole else shown.images.thumbnail
    try:
        picture = await asyncio.to_thread(show, place)
    except NoImage as problem:
        picture = drawn(str(problem), _MISSING_SIDE)
    keep = request.args.get("v") == shown.version
    headers = {"Cache-Control": "private, max-age=86400" if keep else "no-store"}
    return Response(picture.content, headers=headers, content_type=picture.content_type)


async def place_of(datasette: Datasette, row: int) -> Place | None:
    """Where the pixels of a row are; None for a row without a file."""
    found = await datasette.get_database(DATABASE).execute(
        "select image_id, places.* from images left join places using (row) where images.row = ?",
        [row],
    )
    if not found.rows:
        raise NotFound(f"there is no row {row}")
    line = found.rows[0]
    if line["file"] is None:
        return None
    return Place(line["image_id"], line["file"], line["row_group"], line["position"])


@hookimpl  # type: ignore[untyped-decorator]
def render_cell(
    row: sqlite3.Row, value: Any, column: str, table: str | None, datasette: Datasette
) -> Markup | None:
    """Ids of images with their thumbnail, and links to groups and neighbours."""
    if value is None or table is None:
        return None
    version = _shown(datasette).version
    if table == IMAGES and column == "image_id":
        page, source = f"/{DATABASE}/{IMAGES}/{row['row']}", f"/-/thumbnail/{row['row']}?"
        return _with_thumbnail(page, f"{source}v={version}", _described(row), value)
    if table == "neighbours" and column in _IDS:
        page, source = _filtered("image_id", value), f"/-/thumbnail?image_id={quote_plus(value)}"
        kind = "synthetic image" if column == "image_id" else "training image"
        return _with_thumbnail(page, f"{source}&v={version}", kind, value)
    if column == "duplicate_group":
        return Markup('<a href="{}">{}</a>').format(_filtered(column, value), value)
    if isinstance(value, float):
        return Markup("{:.4g}").format(value)
    return None


def _with_thumbnail(page: str, source: str, text: str, name: str) -> Markup:
    return Markup(
        '<a class="thumbnail" href="{}"><img src="{}" width="112" height="112" loading="lazy" '
        'alt="{}">{}</a>'
    ).format(page, source, text, name)


def _described(row: sqlite3.Row) -> str:
    """The alternative text of a row's image."""
    names = set(row.keys())
    kind = row["kind"] if "kind" in names else "an"
    label = (row["label"] if "label" in names else None) or "no label"
    return f"{kind} image, {label}"


def _filtered(column: str, value: str) -> str:
    """The table with one filter."""
    return f"/{DATABASE}/{IMAGES}?{column}={quote_plus(value)}"


@hookimpl  # type: ignore[untyped-decorator]
def extra_template_vars(
    table: str | None, view_name: str, request: Request | None, datasette: Datasette
) -> Callable[[], Awaitable[dict[str, Any]]]:
    """`page`: what the page of one image shows; messages: arguments that were left out."""

    async def values() -> dict[str, Any]:
        if request is not None and _LEFT_OUT in request.scope:
            told = [(sentence, datasette.ERROR) for sentence in request.scope[_LEFT_OUT]]
            return {"show_messages": lambda: told}
        if request is None or view_name != "row" or table != IMAGES:
            return {}
        shown, row = _shown(datasette), int(request.url_vars["pks"])
        place = await place_of(datasette, row)
        page = await detail.of(datasette, shown.images, row, place)
        return {"page": page, "version": shown.version}

    return values
