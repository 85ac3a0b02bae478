"""Stage `distill`: one student of one seed, every arm, from a teacher that `train` wrote.

Reads what `train` reads, and the teacher's cell of the same seed; writes
`models/classifiers/<student>-<seed>/<arm>/` as `train` does, so that every later stage takes a
student like any other classifier. Command: `dermaflux distill --architecture efficientnet
--seed 0`.

All arms with a teacher have the same one, and students have its image size, `train.image_size`.
`config.json` of a student holds `teacher`: its cell and arm, and the SHA-256 of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from dermaflux import paths
from dermaflux.classifiers.data import training_set
from dermaflux.classifiers.data.training_set import Gate
from dermaflux.classifiers.model import network, pretrained
from dermaflux.classifiers.recipes.classification.supervised import Supervised
from dermaflux.classifiers.recipes.distill import teacher
from dermaflux.classifiers.recipes.distill.recipe import Distill
from dermaflux.classifiers.recipes.protocol import Recipe
from dermaflux.classifiers.train import Cell
from dermaflux.core import table
from dermaflux.core.code_digest import stage_digest
from dermaflux.errors import InputError, quoted
from dermaflux.params import Arm, Params


def run(params: Params, architecture: str, seed: int, gate: Gate) -> None:
    """Train every arm of a student whose images pass the gate; its folder appears whole."""
    StudentCell.open(params, architecture, seed, gate).run()


@dataclass(frozen=True)
class StudentCell(Cell):
    """Images and settings of one student and seed."""

    stage: ClassVar[str] = "distill"
    lasting: ClassVar[tuple[Arm, ...]] = ()

    @classmethod
    def open(cls, params: Params, architecture: str, seed: int, gate: Gate) -> Self:
        """Find student and teacher, then the images."""
        if architecture not in params.distill.students:
            raise InputError(
                f"student {quoted(architecture)} is not one of distill.students "
                f"{quoted(params.distill.students)}; name one of them"
            )
        _check_teacher(params, seed)
        return super().open(params, architecture, seed, gate)

    @cached_property
    def teacher(self) -> teacher.Teacher:
        """In memory once, for all arms."""
        return teacher.Teacher(teacher_folder(self.params, self.seed))

    def code(self) -> str:
        """Digest of the code that decides the weights."""
        return stage_digest("distill")

    def recipe(self, arm: Arm) -> Recipe:
        """What an arm learns."""
        plan = self.plan(arm)
        if not self.teachers(arm):
            return Supervised(self.config, plan)
        teaching = teacher.teach(self.teacher, self.images.of(arm).pixels, plan.augmentation)
        section = self.params.distill
        return Distill(self.config, plan, teaching, section.alpha, section.temperature)

    def taught(self, arm: Arm) -> dict[str, Any]:
        """The teacher of an arm, and how much it counts."""
        for folder in self.teachers(arm):
            described = {
                "cell": folder.relative_to(paths.CLASSIFIERS).as_posix(),
                "weights": pretrained.digest(folder / "model.safetensors"),
            }
            section = self.params.distill.model_dump(include={"alpha", "temperature"})
            return {"teacher": {**described, **section}}
        return {}

    def teachers(self, arm: Arm) -> list[Path]:
        """The classifier that an arm learns from; none of the arm without."""
        return [] if arm == "no_teacher" else [teacher_folder(self.params, self.seed)]


def teacher_folder(params: Params, seed: int) -> Path:
    """The teacher of a seed: trained on the mixture where that is an arm, else on real images."""
    arm = "mixture" if "mixture" in params.train.arms else "real"
    return paths.CLASSIFIERS / paths.cell(params.distill.teacher, seed) / arm


def _check_teacher(params: Params, seed: int) -> None:
    """Raise `InputError` unless the teacher knows the students' classes and image size."""
    folder = teacher_folder(params, seed)
    if not folder.is_dir():
        raise InputError(
            f"the teacher {folder} is not there; run `dermaflux train --architecture "
            f"{params.distill.teacher} --seed {seed}`"
        )
    config = network.read_config(folder)
    wanted = params.train.image_size
    if config["image_size"] != wanted:
        raise InputError(
            f"the teacher {folder} reads images of {config['image_size']} pixels and train."
            f"image_size of its students is {wanted}; run `dvc repro train` so that both agree"
        )
    rows = table.metadata(paths.CORPUS, ["label", "diagnosis"], "train")
    classes = training_set.find_classes(params, rows)
    if tuple(config["classes"]) != classes:
        raise InputError(
            f"the teacher {folder} tells {len(config['classes'])} classes apart, "
            f"{quoted(config['classes'])}, and its students {len(classes)}, {quoted(list(classes))}"
            "; run `dvc repro train` so that both agree"
        )
