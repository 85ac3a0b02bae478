"""Parameters of this generator: the sections `finetune.released` and `synthesize.released`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dermaflux.errors import quoted
from dermaflux.params.fields import GeneratorSettings, PathText


class Finetune(GeneratorSettings):
    """Nothing is trained."""


class Synthesize(GeneratorSettings):
    """Which released images become the pool."""

    samples: ClassVar[bool] = False
    folder: PathText | None = None
    """Images in folders called benign and malignant, a zip archive of them, or a Parquet file."""

    def input_paths(self) -> dict[str, str | None]:
        """The images."""
        return {"folder": self.folder}

    def check_inputs(self) -> None:
        """Raise `ValueError` where the images are not."""
        if self.folder is not None and not Path(self.folder).exists():
            raise ValueError(
                f"synthesize.released.folder {quoted(self.folder)} does not exist; correct the path"
            )

    def check_chosen(self) -> None:
        """Raise `ValueError` without a folder."""
        if self.folder is None:
            raise ValueError(
                "generator 'released' needs the folder with the images; set "
                "synthesize.released.folder"
            )
