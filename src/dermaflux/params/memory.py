"""What to change when a stage runs out of memory. Generators bring the words for their own part."""

from __future__ import annotations

from dermaflux.errors import InputError
from dermaflux.params import Params
from dermaflux.params.load import load

_LOWER = {
    "ingest": "set LOKY_MAX_CPU_COUNT to fewer processes than there are cores",
    "caption": (
        "lower caption.batch, set caption.precision to bf16, name a smaller caption.model, or set "
        "caption.route to endpoint"
    ),
    "backbone": "lower backbone.tiny.flow_batch and backbone.tiny.autoencoder_batch",
    "audit": "set audit.features to a folder with SqueezeNet weights: its features are smaller",
    "pretrain": "lower pretrain.batch or train.image_size, or set pretrain.precision to bf16",
    "selector": "lower train.batch or train.image_size, or set train.precision to bf16",
    "train": "lower train.batch or train.image_size, or set train.precision to bf16",
    "distill": "lower distill.batch or train.image_size, or set train.precision to bf16",
    "evaluate": "lower evaluate.batch",
    "zero_shot": "lower zero_shot.batch",
    "promote": "lower train.image_size, or free memory that other programs take",
    "report": "lower report.grid_images",
    "predict": "give fewer images at a time",
}
_OTHERWISE = "free memory that other programs take, or use a machine with more"


def advice(stage: str) -> str:
    """What to lower so that a stage takes less memory, by the parameters in `params.yaml`."""
    try:
        return _advice(stage, load())
    except (InputError, MemoryError):
        return _LOWER.get(stage, _OTHERWISE)


def _advice(stage: str, params: Params) -> str:
    if stage in ("finetune", "synthesize"):
        return getattr(params, stage).settings(params.generator).less_memory or _OTHERWISE
    if stage == "audit" and params.audit.features != "pixels":
        return _OTHERWISE
    return _LOWER.get(stage, _OTHERWISE)
