from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_generator import FINETUNE, Workspace

from dermaflux import table
from dermaflux.captions.prompt_bank import PromptBank
from dermaflux.errors import InputError
from dermaflux.generators import finetune, lora, synthesize
from dermaflux.params import Synthesize
from dermaflux.tracking import Silent

SECTION = Synthesize(images=6, steps=3, guidance=3.5, scale=128, batch=4)


@pytest.fixture(scope="module")
def generator(workspace: Workspace) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace.root)
        folder = workspace.root / "generator"
        grid = workspace.root / "grid.png"
        section = FINETUNE.model_copy(update={"steps": 2, "scales": [128]})
        finetune.finetune(section, 0, *workspace.inputs(), folder, grid, Silent())
    return folder


class _Stop(Silent):
    def metrics(self, values, step):  # type: ignore[no-untyped-def]
        if step == 1:
            raise KeyboardInterrupt


def test_pool_resumes_to_the_same_hashes_and_each_image_can_be_made_again(
    here: Workspace, generator: Path
) -> None:
    def pool(name: str, log: Silent) -> Path:
        output = here.root / name
        synthesize.synthesize(SECTION, 7, *here.inputs(), generator, output, log)
        return output

    with pytest.raises(KeyboardInterrupt):
        pool("resumed", _Stop())
    assert not (here.root / "resumed").exists()
    resumed, whole = pool("resumed", Silent()), pool("whole", Silent())
    rows = table.metadata(whole)
    assert rows.equals(table.metadata(resumed))
    assert [path.read_bytes() for path in table.shards(whole)] == [
        path.read_bytes() for path in table.shards(resumed)
    ]
    assert rows["label"].tolist() == ["benign", "malignant"] * 3
    assert rows["batch"].tolist() == [0, 0, 0, 0, 1, 1]
    assert rows["sha256"].nunique() == rows["seed"].nunique() == 6
    for row in rows.itertuples():
        assert f"{row.label} lesion" in row.prompt
    for image_id in ("synthetic/000002", "synthetic/000005"):
        made, kept = synthesize.remake(image_id, whole, here.backbone, generator)
        assert (made == kept).all()
        assert ((kept > 0) & (kept < 255)).mean() > 0.5  # else pixels could not show a difference
    made, kept = synthesize.remake("synthetic/000002", whole, here.backbone, generator, alone=True)
    assert np.abs(made.astype(int) - kept.astype(int)).max() <= 1


def test_images_do_not_depend_on_the_size_of_the_pool() -> None:
    bank = PromptBank({"benign": ("a", "b", "c"), "malignant": ("d", "e")})
    assert synthesize.plan(4, bank, 1) == synthesize.plan(8, bank, 1)[:4]
    assert synthesize.plan(4, bank, 1) != synthesize.plan(4, bank, 2)
    assert all(0 <= one.seed < 2**63 for one in synthesize.plan(100, bank, 0))


def test_missing_or_other_weights_are_refused(
    here: Workspace, generator: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="run the stage `finetune`"):
        synthesize.read_weights(tmp_path, here.backbone)
    output = here.root / "small"
    section = SECTION.model_copy(update={"images": 2, "steps": 1, "bank": "label"})
    synthesize.synthesize(section, 0, *here.inputs(), generator, output, Silent())
    with pytest.raises(InputError, match="is not in"):
        synthesize.remake("synthetic/000009", output, here.backbone, generator)
    kept = (generator / lora.WEIGHTS).read_bytes()
    try:
        (generator / lora.WEIGHTS).write_bytes(kept[:-4] + b"\0\0\1\0")
        with pytest.raises(InputError, match="was made with weights"):
            synthesize.remake("synthetic/000000", output, here.backbone, generator)
    finally:
        (generator / lora.WEIGHTS).write_bytes(kept)
