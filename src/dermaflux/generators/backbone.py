"""Stage `backbone`: the text-to-image model that `finetune` adapts.

`backbone.repository: tiny` trains a complete FluxPipeline from scratch, in minutes on two cores, on
rendered lesions that are not the corpus. A hub id or folder is pinned instead. Reads nothing but
parameters, writes models/backbone/. Run with `dermaflux backbone`.
"""

from __future__ import annotations

from pathlib import Path

from dermaflux import paths
from dermaflux.core.files import atomic_folder, write_json
from dermaflux.errors import InputError, quoted
from dermaflux.params import Backbone, Params
from dermaflux.tracking import runs


def run(params: Params) -> None:
    """Write models/backbone/ and log the training curves."""
    section = params.backbone
    if section.repository != "tiny":
        pin(section, paths.BACKBONE)
        return
    from dermaflux.generators.tiny_flux import training

    parameters = {"seed": params.seed, **section.model_dump()}
    with runs.start("generator", "backbone", parameters, inputs=[]) as log:
        training.train(section.tiny, params.seed, paths.BACKBONE, log)
        log.outputs(paths.BACKBONE)


def pin(section: Backbone, folder: Path) -> None:
    """Write pin.json; `InputError` for a hub id without revision or a folder without model."""
    from dermaflux.generators.flux_lora.model.pipeline import INDEX, PIN

    source = Path(section.repository)
    if source.is_dir() and not (source / INDEX).exists():
        raise InputError(
            f"backbone.repository {quoted(section.repository)} has no {INDEX}; name a folder saved "
            "by diffusers"
        )
    try:
        section.check_pinned()
    except ValueError as error:
        raise InputError(str(error)) from None
    content = {"repository": section.repository, "revision": section.revision}
    with atomic_folder(folder) as partial:
        write_json(partial / PIN, content)
    at = f" at {section.revision}" if section.revision else ""
    print(f"backbone: {quoted(section.repository)}{at}, by reference, in {folder}", flush=True)
