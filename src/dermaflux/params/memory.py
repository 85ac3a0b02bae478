"""What to change when a stage runs out of memory. Generators bring the words for their own part."""

from __future__ import annotations

from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.params.fields import LessMemory
from dermaflux.params.load import load

_CLASSIFIER = "train.image_size, or set train.precision to bf16"
_CHANGES = {
    "ingest": LessMemory("set LOKY_MAX_CPU_COUNT to fewer processes than there are cores", ""),
    # Answers are stored by image, prompt, model and sampling settings: no batch among them.
    "caption": LessMemory(
        "lower caption.batch",
        "set caption.precision to bf16, name a smaller caption.model, or set caption.route to "
        "endpoint",
    ),
    "backbone": LessMemory(
        "", "lower backbone.tiny.flow_batch and backbone.tiny.autoencoder_batch"
    ),
    "finetune": LessMemory("", ""),
    "synthesize": LessMemory("", ""),
    "pretrain": LessMemory(
        "", "lower pretrain.batch or train.image_size, or set pretrain.precision to bf16"
    ),
    "selector": LessMemory("", f"lower train.batch or {_CLASSIFIER}"),
    "train": LessMemory("", f"lower train.batch or {_CLASSIFIER}"),
    "distill": LessMemory("", f"lower distill.batch or {_CLASSIFIER}"),
}
"""Of stages that save their work as they go."""
_SHORT = {
    "audit": "set audit.features to a folder with SqueezeNet weights, whose features are smaller, "
    "and run the same command again",
    "evaluate": "lower evaluate.batch and run the same command again",
    "zero_shot": "lower zero_shot.batch and run the same command again",
    "promote": "free memory that other programs take and run the same command again; or, from the "
    "training on, lower train.image_size",
    "report": "lower report.grid_images and run the same command again",
    "predict": "give fewer images at a time",
}
"""Of stages and commands that begin again, in minutes."""
_FREE = "free memory that other programs take"
_OTHERWISE = f"{_FREE}, or use a machine with more"
_AGAIN = "and run the same command again, which continues where this run stopped"


def advice(stage: str) -> str:
    """What to change so that a stage has room, by the parameters in `params.yaml`.

    What continues the run stands before what begins it anew.
    """
    try:
        return _advice(stage, load())
    except (InputError, MemoryError):
        return _sentence(_CHANGES[stage]) if stage in _CHANGES else _SHORT.get(stage, _OTHERWISE)


def _advice(stage: str, params: Params) -> str:
    if stage in ("finetune", "synthesize"):
        settings = getattr(params, stage).settings(params.generator)
        return _sentence(settings.less_memory(params.runtime))
    if stage == "audit" and params.audit.features != "pixels":
        return _OTHERWISE
    return _sentence(_CHANGES[stage]) if stage in _CHANGES else _SHORT.get(stage, _OTHERWISE)


def _sentence(change: LessMemory) -> str:
    continues = f"{change.continues or _FREE} {_AGAIN}"
    return f"{continues}; or, from the beginning, {change.anew}" if change.anew else continues
