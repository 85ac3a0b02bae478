"""Counts: the paper's sums from declared counts, real CSV files, and the phantom's plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dermaflux.cli import app
from dermaflux.core.vocabulary import licence
from dermaflux.errors import InputError
from dermaflux.phantom.folder import layouts
from dermaflux.sources import overview, paper_counts
from dermaflux.sources.adapter import Counts, Record
from dermaflux.sources.reading.tables import read_csv
from dermaflux.sources.registry import SOURCES

REAL = Path(__file__).parents[3] / "shared" / "real" / "metadata"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the published CSV files are not available")


def test_the_papers_sums_close() -> None:
    sums = {line.name: (line.counted, line.residue) for line in paper_counts.sums(SOURCES.values())}
    assert sums == {
        "training at 128 pixels": (401_059, 158),
        "training at 256 pixels": (22_140, 0),
        "training at 512 pixels": (85_303, 0),
        "training in all": (508_502, 158),
        "held-out test": (9_191, 0),
    }
    assert all(line.closes for line in paper_counts.sums(SOURCES.values()))
    assert paper_counts.held_out_classes(SOURCES.values()) == (4_850, 3_967, 374)
    assert not any(paper_counts.inconsistent(source) for source in SOURCES.values())


def test_a_wrong_count_is_named_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(app, ["sources", "--check"]).exit_code == 0
    wrong = replace(SOURCES["ddi"], counts={"train": Counts(657, 485, 171)})
    monkeypatch.setitem(SOURCES, "ddi", wrong)
    text, lines = overview.check(SOURCES.values())
    assert lines == [
        "ddi train: 485 benign + 171 malignant + 0 indeterminate + 0 without meaning is not 657",
        "training at 256 pixels off by +1",
        "training in all off by +1",
    ]
    assert "off by +1" in text
    result = CliRunner().invoke(app, ["sources", "--check"])
    assert result.exit_code != 0
    assert isinstance(result.exception, InputError)


def test_the_overview_lists_each_dataset_with_units_and_a_command() -> None:
    text = CliRunner().invoke(app, ["sources"]).output
    for source in SOURCES.values():
        assert source.command in text
    assert "12.7 GB" in text
    assert "314 MB" in text
    assert "agreement" in text


def linked(tmp_path: Path, name: str, renamed: dict[str, str]) -> list[Record]:
    """Records of the real CSV files under their published names, without any image."""
    for published, copy in renamed.items():
        (tmp_path / published).symlink_to(REAL / copy)
    return list(SOURCES[name].read(tmp_path))


def labels(records: list[Record], split: str = "train") -> tuple[int, int, int, int]:
    """Benign, malignant, indeterminate, none."""
    counts = Counter(record.facts.label for record in records if record.split == split)
    return counts["benign"], counts["malignant"], counts["indeterminate"], counts[None]


def declared(name: str, split: str) -> tuple[int | None, int | None, int, int]:
    counts = SOURCES[name].counts[split]  # type: ignore[index]
    return counts.benign, counts.malignant, counts.indeterminate, counts.meaningless


def same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


@real
def test_real_isic2019(tmp_path: Path) -> None:
    parts = ("Training_GroundTruth", "Training_Metadata", "Test_GroundTruth", "Test_Metadata")
    records = linked(tmp_path, "isic2019", same(*(f"ISIC_2019_{part}.csv" for part in parts)))
    assert len(records) == 25_331 + 8_238
    assert labels(records) == (15_991, 8_473, 867, 0) == declared("isic2019", "train")
    assert labels(records, "test") == (3_350, 2_467, 374, 2_047) == declared("isic2019", "test")
    lesions = [record.facts.lesion_id for record in records if record.split == "train"]
    assert len(set(lesions) - {None}) == 11_847
    assert lesions.count(None) == 2_084
    assert sum(record.original_id.endswith("_downsampled") for record in records) == 2_074


@real
def test_real_isic2020(tmp_path: Path) -> None:
    names = ("ISIC_2020_Training_GroundTruth.csv", "ISIC_2020_Training_Duplicates.csv")
    records = linked(tmp_path, "isic2020", same(*names))
    assert labels(records) == (32_542, 584, 0, 0) == declared("isic2020", "train")
    assert len({record.facts.patient_id for record in records}) == 2_056
    pairs = SOURCES["isic2020"].pairs(tmp_path)
    assert len(pairs) == 425
    assert {name for pair in pairs for name in pair} <= {record.original_id for record in records}


@real
def test_real_milk10k(tmp_path: Path) -> None:
    parts = ("GroundTruth", "Metadata", "Supplement")
    records = linked(tmp_path, "milk10k", same(*(f"MILK10k_Training_{part}.csv" for part in parts)))
    assert len(records) == 10_480
    # 6,908 of malignant classes and the 360 of AKIEC that are carcinoma in situ.
    assert labels(records) == (2_966, 6_908 + 360, 246, 0) == declared("milk10k", "train")
    assert Counter(record.facts.modality for record in records) == {
        "clinical": 5_240,
        "dermoscopic": 5_240,
    }
    lesions = Counter(record.facts.lesion_id for record in records)
    assert set(lesions.values()) == {2}
    tones = Counter(record.facts.skin_tone for record in records)
    per_class = {"VI": 6, "V": 105, "IV": 506, "III": 3_174, "II": 1_066, "I": 383}
    assert tones == {tone: 2 * count for tone, count in per_class.items()}
    assert {record.facts.licence for record in records} == {"CC-BY-NC"}


@real
def test_real_padufes20(tmp_path: Path) -> None:
    records = linked(tmp_path, "padufes20", {"metadata.csv": "PAD-UFES-20_metadata.csv"})
    assert labels(records) == (479, 1_089, 730, 0) == declared("padufes20", "train")
    assert len({record.facts.patient_id for record in records}) == 1_373
    numbers = {str(record.facts.lesion_id).rsplit(":", 1)[1] for record in records}
    assert len(numbers) == 1_641
    assert sum(record.facts.skin_tone is None for record in records) == 804


@real
def test_real_derm12345_sample(tmp_path: Path) -> None:
    name = "derm12345_metadata_train.csv"
    records = linked(tmp_path, "derm12345", {name: "DERM12345_metadata_sample.csv"})
    assert labels(records) == (59, 25, 0, 0)
    # Without images, that is the only problem of any row.
    assert {r.facts.problem.rule for r in records if r.facts.problem} == {"no-image"}


@real
def test_real_isic2024_columns() -> None:
    # The public file is the test part's: no target, so only its columns can be tested.
    path = REAL / "ISIC_2024_test-metadata_3rows.csv"
    rows = read_csv(path, ("isic_id", "patient_id", "copyright_license"), ("iddx_1",))
    assert [licence(row.values["copyright_license"]) for row in rows] == ["CC-BY"] * 3
    with pytest.raises(InputError, match="lacks the column 'target'"):
        read_csv(path, ("isic_id", "target"))


def test_every_phantom_image_is_read_with_its_planned_label(tmp_path: Path) -> None:
    for name, layout in layouts().items():
        for planned in layout.images:
            path = tmp_path / planned.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if planned.damage != "no file":
                path.touch()
        for csv_name, text in layout.files.items():
            (tmp_path / csv_name).write_text(text)
        read = {r.path: r for r in SOURCES[name].read(tmp_path / name) if r.path}
        plan = {tmp_path / p.path: p for p in layout.images if p.damage != "no file"}
        assert read.keys() == plan.keys(), name
        for path, planned in plan.items():
            record = read[path]
            assert record.facts.label == {"unknown": None}.get(planned.label, planned.label)
            assert record.split == ("test" if planned.split == "test" else "train")


def test_the_datasets_of_table_1_add_up_to_the_papers_sums() -> None:
    rows = paper_counts.datasets(SOURCES.values())
    assert list(rows) == list(SOURCES)[:11]
    assert sum(int(row["training"]) for row in rows.values()) == 508_344 + 158
    assert sum(int(row["test"]) for row in rows.values()) == 9_191
    assert rows["isic2024"] | {"title": ""} == {
        "title": "", "training": 401_059, "test": 0, "scale": 128,
    }  # fmt: skip
