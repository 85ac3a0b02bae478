from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_generator import corpus_row, write_corpus

from dermaflux.audit import audit
from dermaflux.classifiers.data import subset
from dermaflux.core import table
from dermaflux.core.images import decode_image
from dermaflux.errors import InputError
from dermaflux.generators import reproduce
from dermaflux.generators.pool import prompts
from dermaflux.generators.protocol import Models, Wanted
from dermaflux.generators.released.sampling import collect
from dermaflux.params import Audit, Synthesize

SECTION = Synthesize(images=6, scale=128, shard_images=4)


def _image(seed: int, size: tuple[int, int] = (128, 128), kind: str = "PNG") -> bytes:
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def _tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _good() -> dict[str, bytes]:
    return {
        "Benign Images/1.png": _image(1),
        "Benign Images/2.jpg": _image(2, kind="JPEG"),
        "Benign Images/3.png": _image(3, (300, 200)),
        "set/malignant_0001.png": _image(11),
        "set/malignant_0002.png": _image(12),
        "set/MALIGNANT-3.jpeg": _image(13, (256, 256), "JPEG"),
    }


def test_every_file_is_taken_spare_or_in_quarantine(tmp_path: Path) -> None:
    bad = {
        "benign/small.png": _image(4, (64, 64)),
        "benign/cut.png": _image(5)[:200],
        "benign/empty.png": b"",
        "benign/malignant/x.png": _image(6),
        "other/7.png": _image(7),
        "benign/copy.png": _image(1),
        "benign/8.png": _image(8),
        "malignant/8.png": _image(8),
        "benign/photo.gif": b"GIF89a" + bytes(50),
    }
    ignored = {"README.md": b"benign", ".cache/benign/9.png": _image(9), "benign.csv": b"a"}
    folder = _tree(tmp_path / "released", _good() | bad | ignored)
    collect.collect(SECTION, folder, tmp_path / "synthetic", tmp_path / "report")
    rows = table.metadata(tmp_path / "synthetic")
    assert set(rows["image_id"]) == {f"synthetic/{name}" for name in _good()}
    counts = json.loads((tmp_path / "report" / "counts.json").read_text())
    assert counts["found"] == 15 == 6 + counts["not_needed"] + sum(counts["quarantined"].values())
    assert counts["images"] == {"benign": 3, "malignant": 3}
    reasons = {name: counts["quarantined"][name] for name in ("ambiguous", "duplicate")}
    assert reasons == {"ambiguous": 2, "duplicate": 2}
    assert counts["quarantined"]["unlabelled"] == 1
    # Only as many are decoded as it takes; too few of a class end the stage.
    with pytest.raises(
        InputError, match="needs 5 malignant images .* has 3; lower synthesize.images"
    ):
        collect.collect(
            SECTION.model_copy(update={"images": 10}), folder, tmp_path / "more", tmp_path / "none"
        )
    assert not (tmp_path / "more").exists()
    lines = (tmp_path / "report" / "quarantine.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(counts["quarantined"].values())
    assert "benign/copy.png,duplicate,the same image as Benign Images/1.png" in lines

    images = dict(table.images(tmp_path / "synthetic"))
    assert images["synthetic/Benign Images/2.jpg"] == _good()["Benign Images/2.jpg"]
    assert decode_image(images["synthetic/Benign Images/3.png"]).size == (128, 128)
    by_name = rows.set_index("image_id")
    row = by_name.loc["synthetic/Benign Images/3.png"]
    assert (row["width"], row["height"], row["scale"]) == (300, 200, 128)
    assert set(rows["generator"]) == {"released"}
    assert set(rows["sampler_settings"]) == {'{"folder": "released"}'}
    assert rows[["prompt", "seed", "steps", "guidance", "batch"]].isna().all(axis=None)


def test_the_choice_is_by_content_and_too_few_is_one_sentence(tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"images": 4})
    chosen = []
    for number in range(2):
        files = {f"{name[:-4]}-{number}.png": content for name, content in _good().items()}
        folder = _tree(tmp_path / str(number), files)
        output = tmp_path / f"pool-{number}"
        collect.collect(section, folder, output, tmp_path / "report")
        chosen.append(set(table.metadata(output)["sha256"]))
    assert chosen[0] == chosen[1]
    assert json.loads((tmp_path / "report" / "counts.json").read_text())["not_needed"] == 2
    with pytest.raises(InputError, match="does not exist"):
        collect.collect(section, tmp_path / "none", tmp_path / "pool", tmp_path / "report")


def test_tables_with_class_labels(tmp_path: Path) -> None:
    info = {"info": {"features": {"label": {"names": ["benign", "malignant"]}}}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
         ("label", pa.int64())],
        metadata={"huggingface": json.dumps(info)},
    )  # fmt: skip
    rows = [{"image": {"bytes": _image(n), "path": None}, "label": n % 2} for n in range(8)]
    path = tmp_path / "pool.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    collect.collect(SECTION, path, tmp_path / "synthetic", tmp_path / "report")
    pool = table.metadata(tmp_path / "synthetic")
    assert pool["label"].value_counts().to_dict() == {"benign": 3, "malignant": 3}
    assert set(pool["licence"]) == {"see pool"}
    pq.write_table(pa.table({"picture": [1]}), path)
    with pytest.raises(InputError, match="columns picture and not image and label"):
        collect.collect(SECTION, path, tmp_path / "other", tmp_path / "report")


def test_folders_name_the_diagnosis_where_that_is_asked_for(tmp_path: Path) -> None:
    """What one name says and training images do not is left out, never taken for another class."""
    good = {f"benign/Naevus/{n}.png": _image(n) for n in range(5)}
    good |= {f"malignant/melanoma/{n}.png": _image(10 + n) for n in range(3)}
    bad = {
        "benign/melanoma/1.png": _image(20),
        "benign/nevsu/1.png": _image(21),
        "benign/2.png": _image(22),
        "malignant/melanoma/twice.png": _image(23),
        "malignant/basal cell carcinoma/twice.png": _image(23),
        "unknown/nevus/1.png": _image(24),
    }
    folder = _tree(tmp_path / "released", good | bad)
    section = SECTION.model_copy(update={"conditions": "diagnosis", "proportions": "natural"})
    labels = {"nevus": frozenset({"benign"}), "melanoma": frozenset({"malignant"})}
    known = labels | {"basal cell carcinoma": frozenset({"malignant"})}
    wanted = Wanted({"nevus": 4, "melanoma": 2}, known)
    collect.collect(section, folder, tmp_path / "synthetic", tmp_path / "report", wanted)
    rows = table.metadata(tmp_path / "synthetic")
    assert rows.groupby(["label", "diagnosis"]).size().to_dict() == {
        ("benign", "nevus"): 4, ("malignant", "melanoma"): 2,
    }  # fmt: skip
    lines = (tmp_path / "report" / "quarantine.csv").read_text().splitlines()[1:]
    left_out = {line.split(",")[0]: line.split(",")[1] for line in lines}
    assert {line.rpartition("/")[0] for line in left_out} == {
        "benign/melanoma", "benign/nevsu", "benign", "malignant/melanoma",
        "malignant/basal cell carcinoma", "unknown/nevus",
    }  # fmt: skip
    assert left_out["benign/melanoma/1.png"] == "ambiguous"
    assert left_out["benign/nevsu/1.png"] == "unlabelled"
    counts = json.loads((tmp_path / "report" / "counts.json").read_text())
    assert counts["images"] == {"melanoma": 2, "nevus": 4}
    assert counts["found"] == 14 == 6 + counts["not_needed"] + len(left_out)
    more = Wanted({"nevus": 2, "melanoma": 4}, labels)
    with pytest.raises(InputError, match="needs 4 melanoma images .* has 3; lower"):
        collect.collect(section, folder, tmp_path / "more", tmp_path / "none", more)
    corpus = [corpus_row(n, 128) for n in range(6)]
    for row, _ in corpus:
        row["diagnosis"] = {"benign": "nevus", "malignant": "melanoma"}[row["label"]]
    asked = prompts.wanted(section, write_corpus(tmp_path, corpus)[0])
    assert asked == Wanted({"nevus": 4, "melanoma": 2}, labels)


def test_audit_and_mixture_take_such_a_pool(tmp_path: Path) -> None:
    corpus, _ = write_corpus(tmp_path, [
        corpus_row(n, 128, split="validation" if n % 5 == 4 else "train") for n in range(30)
    ])  # fmt: skip
    pool = tmp_path / "synthetic"
    more = {f"{label}/{n}.png": _image(100 * n + len(label)) for n in range(4)
            for label in ("benign", "malignant")}  # fmt: skip
    folder = _tree(tmp_path / "released", more)
    section = SECTION.model_copy(update={"images": 8})
    collect.collect(section, folder, pool, tmp_path / "report")
    report, pairs, _ = audit.examine(corpus, pool, Audit())
    assert report["images"] == len(pairs) == 8
    rows = table.metadata(pool, ["image_id", "label"], "train")
    assert len(subset.draw_synthetic(rows, [], subset.balanced(4), 0)) == 4
    with pytest.raises(InputError, match="is a released image"):
        reproduce.sample_again(rows["image_id"].iloc[0], pool, Models(tmp_path, tmp_path))
