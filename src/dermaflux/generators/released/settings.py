"""Parameters of this generator: the sections `finetune.released` and `synthesize.released`."""

from __future__ import annotations

from typing import ClassVar

from dermaflux.params.fields import GeneratorSettings, PathText


class Finetune(GeneratorSettings):
    """Nothing is trained."""


class Synthesize(GeneratorSettings):
    """Which released images become the pool."""

    samples: ClassVar[bool] = False
    folder: PathText | None = None
    """Images in folders called benign and malignant, or a Parquet file."""

    def check_chosen(self) -> None:
        """Raise `ValueError` without a folder."""
        if self.folder is None:
            raise ValueError(
                "generator 'released' needs the folder with the images; set "
                "synthesize.released.folder"
            )
