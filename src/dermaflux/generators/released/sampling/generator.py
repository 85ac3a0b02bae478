"""How released images become the pool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dermaflux.generators.protocol import Collection, Need, Wanted
from dermaflux.generators.released.model import files
from dermaflux.generators.released.sampling import collect
from dermaflux.generators.released.settings import Synthesize as Settings
from dermaflux.params import Synthesize
from dermaflux.params.fields import GeneratorSettings


class ReleasedImages:
    """The entry `sampling.generator` of released images."""

    needs: frozenset[Need] = frozenset()

    def named(self, settings: GeneratorSettings) -> Mapping[str, int]:
        """Class -> files of `synthesize.released.folder`."""
        assert isinstance(settings, Settings)
        return files.named(Path(str(settings.folder)))

    def collect(
        self,
        section: Synthesize,
        settings: GeneratorSettings,
        output: Path,
        report: Path,
        wanted: Wanted | None = None,
    ) -> None:
        """Write the pool from `synthesize.released.folder`."""
        assert isinstance(settings, Settings)
        collect.collect(section, Path(str(settings.folder)), output, report, wanted)


GENERATOR: Collection = ReleasedImages()
