"""The tables and counts of `ingest`, from records made by hand."""

from __future__ import annotations

import csv
import io

from decoded_items import decoded_item

from dermaflux.corpus import ingest_report
from dermaflux.corpus.splitting.records import Rejection
from dermaflux.corpus.splitting.selection import Selection
from dermaflux.sources.adapter import Problem

NASTY = 'its label is "odd", see\nline 2'


def test_the_quarantine_table_survives_quotes_and_is_in_a_fixed_order() -> None:
    rejections = [
        Rejection(decoded_item(name).item, "source", Problem("no-label", NASTY))
        for name in ("isic2019/b", "ddi/z", "isic2019/a")
    ]
    text = ingest_report.quarantine_csv(rejections)
    assert text == ingest_report.quarantine_csv(rejections[::-1])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["image_id"] for row in rows] == ["ddi/z", "isic2019/a", "isic2019/b"]
    assert rows[0] == {
        "source": "ddi",
        "location": "ddi/z.jpg",
        "image_id": "ddi/z",
        "stage": "source",
        "rule": "no-label",
        "reason": NASTY,
    }


def test_the_leak_table_has_its_columns_even_when_empty() -> None:
    assert ingest_report.leaks_csv([]) == "image_id,split,test_image,tie\n"
    row = {"tie": "lesion", "test_image": "t", "split": "train", "image_id": "i"}
    assert ingest_report.leaks_csv([row]).splitlines()[1:] == ["i,train,t,lesion"]


def test_counts_add_up_for_each_dataset_and_scale() -> None:
    decoded = [decoded_item(f"ddi/{n}") for n in range(3)] + [
        decoded_item("isic2019/a", licence="CC0"),
        decoded_item("isic2019/b", label="malignant"),
    ]
    unread = decoded_item("isic2019/c").item
    selection = Selection(
        labels=["benign", "benign", "benign", "benign", "malignant"],
        scales=[128, 256, 256, 512, 128],
        splits=["train", "train", "validation", "test", "train"],
        groups=["ddi/0", "ddi/0", None, None, None],
        lost={1: ("duplicate", Problem("duplicate", ""))},
    )
    rejections = [
        Rejection(decoded[1].item, "duplicate", Problem("duplicate", ""), 256),
        Rejection(unread, "decode", Problem("damaged", "")),
    ]
    items = [*(entry.item for entry in decoded), unread]
    datasets = [decoded[0].item.dataset, unread.dataset]
    summary = ingest_report.summary(items, decoded, selection, rejections, datasets)
    assert summary["images"] == {"in": 6, "kept": 4, "quarantined": 2}
    counts = {
        name: (source["in"], source["kept"], source["quarantined"])
        for name, source in summary["sources"].items()
    }
    assert counts == {"ddi": (3, 2, 1), "isic2019": (3, 2, 1)}
    assert summary["licences"] == {"research-only": 2, "CC0": 1, "CC-BY-NC": 1}
    assert summary["kept"] == {
        "train": {"ddi": {"benign": {"128": 1}}, "isic2019": {"malignant": {"128": 1}}},
        "validation": {"ddi": {"benign": {"256": 1}}},
        "test": {"isic2019": {"benign": {"512": 1}}},
    }
    assert summary["scales"] == {
        "128": {"in": 2, "kept": 2, "quarantined": 0},
        "256": {"in": 2, "kept": 1, "quarantined": 1},
        "512": {"in": 1, "kept": 1, "quarantined": 0},
        "none": {"in": 1, "kept": 0, "quarantined": 1},
    }
    assert summary["quarantine"] == {
        "stage": {"duplicate": 1, "decode": 1},
        "rule": {"duplicate": 1, "damaged": 1},
    }
    assert summary["duplicates"] == {"groups": 1, "images": 2, "largest": 2}
