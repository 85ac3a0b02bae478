"""What the pages of `dermaflux browse` show, asked for as a browser does but without one."""

from __future__ import annotations

import html
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import browsed_run as made
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dermaflux import paths
from dermaflux.browse import index, server
from dermaflux.errors import InputError

Start = Callable[[], made.Get]
TABLE = "/dermaflux/images"


def ids(get: made.Get, query: str) -> list[str]:
    """Images of a filter, from the same page as JSON."""
    answer = get(f"{TABLE}.json?_shape=array&{query}")
    return [line["image_id"] for line in answer.json()]


def counted(page: str, column: str) -> dict[str, int]:
    """Values and their counts as the page lists them for a column."""
    part = re.search(rf'data-column="{column}".*?</ul>', page, re.S)
    assert part, column
    lines = re.findall(r"<li>(?:<a[^>]*>)?([^<&]+)(?:</a>| &middot;) ([\d,]+)", part[0])
    return {value.strip(): int(count.replace(",", "")) for value, count in lines}


def pixel(content: bytes) -> tuple[int, ...]:
    """Colour of the middle of an image."""
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    return tuple(int(value) for value in image[len(image) // 2, len(image) // 2])


def test_each_filter_finds_what_the_tables_hold(run: Path, get: Start) -> None:
    ask = get()
    rows = [*made.corpus(), *made.pool()]
    for column, value in (
        ("source", "ddi"),
        ("label", "malignant"),
        ("split", "test"),
        ("skin_tone", "V-VI"),
    ):
        wanted = {line["image_id"] for line in rows if line.get(column) == value}
        found = ids(ask, f"{column}={value}&kind__in=real,synthetic")
        assert set(found) == wanted, column
        assert len(found) == len(wanted)
    assert ids(ask, "quarantine_rule=too-small") == ["ddi/dark"]
    assert ids(ask, "quarantine_reason__contains=below") == ["ddi/dark"]
    assert ids(ask, "_search=truncated") == ["ddi/secret"]
    assert ids(ask, "audit_verdict=rejected:+copy") == ["synthetic/000001"]
    assert len(ids(ask, "_search=benign+lesion")) == 6
    nearest = [f"synthetic/{number:06d}" for number in range(6)]
    assert ids(ask, "kind=synthetic&_sort=audit_ratio") == nearest
    assert ids(ask, "kind=synthetic&_sort_desc=audit_ratio") == nearest[::-1]


def test_counts_are_those_of_the_whole_filter_on_every_page(run: Path, get: Start) -> None:
    ask = get()
    whole, second = (ask(f"{TABLE}?{query}").text for query in ("", "_size=5&_next=5"))
    assert counted(whole, "kind") == {"real": 50, "synthetic": 6, "quarantined": 5}
    assert counted(whole, "label") == {"benign": 51, "malignant": 5}
    assert counted(second, "label") == counted(whole, "label")
    # Datasette hands over the rest of a filter on its later pages; better no counts than these.
    later = ask(f"{TABLE}?image_id__startswith=ddi/&_size=5&_next=35").text
    assert 'id="facet-label"' not in later
    # Of columns that are counted in advance, and of one that is not.
    for query in ("source=ddi&label=benign", "image_id__startswith=ddi/&label=benign"):
        page = ask(f"{TABLE}?{query}").text
        assert counted(page, "skin_tone") == {"V-VI": 10}
        assert "10 rows" in page


def test_a_planted_duplicate_group_is_found_with_the_copies_left_out(run: Path, get: Start) -> None:
    ask = get()
    (group,) = ask("/dermaflux/duplicate_groups.json?_shape=array").json()
    assert (group["images"], group["quarantined"]) == (made.COPIES, made.COPIES - 1)
    assert sorted(ids(ask, "group_size=3")) == ["hiba/a copy", "hiba/kept", "hiba/third"]
    lines = ask(f"{TABLE}.json?_shape=array&duplicate_group=hiba/a+copy").json()
    assert len(lines) == made.COPIES
    for line in lines:
        thumbnail = ask(f"/-/thumbnail/{line['row']}")
        assert np.abs(np.subtract(pixel(thumbnail.content), (99, 90, 60))).max() < 4
    page = ask(f"{TABLE}/{lines[0]['row']}").text
    assert "Its duplicate group" in page
    assert "hiba/third" in page


def test_the_page_of_a_synthetic_image_shows_its_origin_and_its_neighbours(
    run: Path, get: Start
) -> None:
    ask = get()
    line = ask(f"{TABLE}.json?_shape=array&image_id=synthetic/000002").json()[0]
    image = ask(f"/-/image/{line['row']}")
    assert image.content == made.pool()[2]["image"]["bytes"]
    assert image.headers["content-type"] == "image/png"
    page = ask(f"{TABLE}/{line['row']}").text
    assert "<code>dermaflux reproduce synthetic/000002</code>" in page
    assert "a &lt;b&gt;benign&lt;/b&gt; lesion" in page  # a prompt is text, not markup
    for value in (str(2**62), "ab" * 32, "isic2019/3", "distance 7.00, ratio 0.70", "isic2019/4"):
        assert value in html.unescape(page), value
    real = ask(f"{TABLE}.json?_shape=array&image_id=isic2019/3").json()[0]
    assert "Synthetic images whose nearest" in ask(f"{TABLE}/{real['row']}").text


def test_only_this_machine_is_answered_under_its_own_name(run: Path, get: Start) -> None:
    ask = get()
    for host in ("rebound.example:8001", "127.0.0.1:9999", "127.0.0.1.rebound.example:8001"):
        answer = ask(TABLE, host=host)
        assert (answer.status_code, answer.text.count("\n")) == (421, 1)
    answer = ask(TABLE, host="localhost:8001")
    assert answer.status_code == 200
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


def test_names_and_reasons_are_text_and_never_markup(run: Path, get: Start) -> None:
    ask = get()
    (line,) = ask(f"{TABLE}.json?_shape=array&source=own").json()
    assert line["image_id"] == made.HOSTILE
    for address in (f"{TABLE}?source=own", f"{TABLE}/{line['row']}", f"{TABLE}?a={made.HOSTILE}"):
        page = ask(address).text
        assert "<i id" not in page
        assert '" onerror' not in page


def test_a_file_outside_the_data_folder_is_never_served(run: Path, get: Start) -> None:
    ask = get()
    line = ask(f"{TABLE}.json?_shape=array&image_id=ddi/secret").json()[0]
    assert Path("secret.png").is_file()
    for address in (f"/-/image/{line['row']}", f"/-/thumbnail/{line['row']}"):
        assert ask(address).headers["content-type"] == "image/svg+xml"
    assert "is not below the data folder" in ask(f"{TABLE}/{line['row']}").text


@pytest.mark.parametrize(
    ("query", "rest", "rows"),
    [
        ("lable=benign&source=ddi", "lable=benign", 17),
        ("_sort=caption&source=ddi", "_sort=caption", 17),
        ("label__is=benign&source=ddi", "label__is=benign", 17),
        ("label__in=%5Bbenign&source=ddi", "label__in=[benign", 17),
        ("_size=0&source=ddi", "_size=0", 17),
        ("_facet=nothing&source=ddi", "_facet=nothing", 17),
        ("_search=%00&source=ddi", "_search=", 17),
        ("_through=1&_timelimit=x&source=ddi", "_timelimit=x", 17),
        ("_next=x&source=ddi", None, 17),
        ('_search="benign', None, 6),
    ],
)
def test_a_wrong_argument_is_named_and_the_rest_of_the_page_stands(
    run: Path, get: Start, query: str, rest: str | None, rows: int
) -> None:
    answer = get()(f"{TABLE}?{query}")
    assert answer.status_code == 200
    assert f"{rows} rows" in answer.text
    named = re.findall(r'<p class="message-error">(.*?)</p>', answer.text)
    assert bool(named) == (rest is not None)
    assert rest is None or any(rest in html.unescape(sentence) for sentence in named)


def test_damaged_and_edited_inputs_are_named_and_the_rest_is_shown(run: Path, get: Start) -> None:
    (shard,) = paths.SYNTHETIC.glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-100])
    (paths.AUDIT_FIGURES / "nearest.csv").write_text("image_id,ratio\nsynthetic/000000,1\n")
    edited = next(paths.CORPUS.glob("test-*.parquet"))
    rows = pq.read_table(edited)
    labels = rows.schema.get_field_index("label")
    pq.write_table(rows.set_column(labels, "label", [["malignant"] * len(rows)]), edited)
    page = html.unescape(get()(TABLE).text)
    told = re.findall(r'<p class="message-error">(.*?)</p>', page)
    for name in ("synthetic/train", "nearest.csv", "corpus/test"):
        assert sum(name in sentence for sentence in told) == 1, name
    assert counted(page, "kind") == {"real": 46, "quarantined": 5}


def test_an_image_that_changed_is_not_shown_as_another(run: Path, get: Start) -> None:
    ask = get()
    line = ask(f"{TABLE}.json?_shape=array&image_id=ddi/3").json()[0]
    for shard in paths.CORPUS.glob("train-*.parquet"):
        rows = pq.read_table(shard)
        pq.write_table(rows.take(list(range(len(rows)))[::-1]), shard)
    assert ask(f"/-/image/{line['row']}").headers["content-type"] == "image/svg+xml"
    assert "changed or is damaged" in ask(f"{TABLE}/{line['row']}").text


def test_a_corpus_alone_a_pool_alone_and_nothing(folder: Path, get: Start) -> None:
    with pytest.raises(InputError, match="nothing to browse; run `dvc repro ingest`"):
        index.open_index()
    made.write_corpus()
    page = get()(TABLE).text
    assert "synthetic is missing, so no synthetic image is shown" in page
    assert "55 rows" in page
    for path in (paths.CORPUS, paths.REPORTS):
        shutil.rmtree(path)
    made.write_pool()
    ask = get()
    assert "corpus is missing, so no real image is shown" in ask(TABLE).text
    line = ask(f"{TABLE}.json?_shape=array").json()[0]
    assert "The audit names isic2019/3, which no table holds" in ask(f"{TABLE}/{line['row']}").text


def test_the_index_is_built_again_when_an_input_changes_and_only_then(run: Path) -> None:
    first = index.open_index()
    stamp = first.stat().st_mtime_ns
    assert index.open_index() == first
    assert first.stat().st_mtime_ns == stamp
    with paths.QUARANTINE.open("a") as file:
        file.write("ddi,ddi/x.png,ddi/x,decode,too-small,8 is below 24\n")
    second = index.open_index()
    assert second != first
    assert not first.exists()  # one index is kept


def test_a_port_in_use_and_a_missing_extra_are_one_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.listening(0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} of 127.0.0.1 .*--port"):
            server.listening(port)
    hidden = (
        "import sys; sys.modules['datasette'] = None\n"
        "from dermaflux.browse import server\n"
        "server.run(8001, False)"
    )
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert 'run `pip install "dermaflux[browse]"`' in done.stderr
