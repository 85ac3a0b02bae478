"""Stage `backbone`: the text-to-image model that `finetune` adapts.

A hub id, or a folder such as backbones/tiny-flux that comes with the repository, is pinned.
`backbone.repository: tiny` trains a complete FluxPipeline from scratch instead, in minutes on two
cores, on rendered lesions that are not the corpus. Reads nothing but parameters and the folder,
writes models/backbone/. Run with `dermaflux backbone`; `--release FOLDER` makes the released one.
"""

from __future__ import annotations

from pathlib import Path

from dermaflux import paths
from dermaflux.core import hub
from dermaflux.core.files import atomic_folder, require_empty, write_json
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


def release(folder: Path) -> None:
    """Train the backbone that comes with the repository: two hours and a half of one core."""
    from dermaflux.generators.tiny_flux import release

    require_empty(folder, "the released backbone")
    parameters = {"seed": release.SEED, **release.RECIPE.model_dump()}
    with runs.start("generator", "backbone release", parameters, inputs=[]) as log:
        release.release(folder, paths.project_root() / ".dermaflux" / "backbone", log)
        log.outputs(folder)
    print(f"backbone: released in {folder}", flush=True)


def pin(section: Backbone, folder: Path) -> None:
    """Write pin.json, with the commit that a hub id's revision stands for today.

    Raises `InputError` for a hub id without revision, for a branch or tag that cannot be looked up,
    and for a folder without model.
    """
    from dermaflux.generators.flux_lora.model.pipeline import INDEX, PIN, folder_hash

    source = Path(section.repository)
    local = source.is_dir()
    if local and not (source / INDEX).exists():
        raise InputError(
            f"backbone.repository {quoted(section.repository)} has no {INDEX}; name a folder saved "
            "by diffusers"
        )
    try:
        section.check_pinned(Path())
    except ValueError as error:
        raise InputError(str(error)) from None
    content = {"repository": section.repository, "revision": None}
    if local:
        content["digest"] = folder_hash(source)
    elif section.revision is not None:
        content["revision"] = hub.commit(
            "backbone.repository", section.repository, section.revision, INDEX,
            "name the full hash of a commit, or run it while the hub can be reached",
        )  # fmt: skip
    with atomic_folder(folder) as partial:
        write_json(partial / PIN, content)
    at = f" at {content['revision']}" if content["revision"] else ""
    print(f"backbone: {quoted(section.repository)}{at}, by reference, in {folder}", flush=True)
