"""The command line: one command per stage of `dvc.yaml`, and those of `cli_tools` and `cli_models`.

Stage modules are imported when their command runs, so that `dermaflux --help` stays fast.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dermaflux import cli_models, cli_tools, launch
from dermaflux.core.code_digest import STAGE_CODE
from dermaflux.errors import redacted, sentence_for

# Read when torch loads. Threads that spin long while they wait make two busy processes on two cores
# many times slower, as in `dvc queue start -j 2`; threads that sleep at once cost a third of the
# speed of one. A short spin keeps nearly all of both.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# Buckets have many shapes; segments that grow can be used again by all of them. Linux only.
if sys.platform == "linux" and "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

app = typer.Typer(
    name="dermaflux",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from dermaflux import project

        print(f"dermaflux {project.package_version()}")
        raise typer.Exit


@app.callback()
def before(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Synthetic skin-lesion images, and whether they improve malignancy classifiers."""
    if context.invoked_subcommand in STAGE_CODE and context.resilient_parsing is False:
        from dermaflux import project

        project.require_current_code()


_ROOMS = {
    "ingest": ("corpus", "Data folder -> corpus/, quarantine table, counts."),
    "validate": (
        "validation",
        "Great Expectations over corpus and captions; fail on a broken one.",
    ),
    "finetune": ("generators", "Train the generator on the corpus -> models/generator/."),
    "synthesize": ("generators", "Generator and captions -> synthetic/ shards with provenance."),
    "validate_pool": ("validation", "Great Expectations over synthetic/; fail on a broken one."),
    "audit": ("audit", "Memorisation, fidelity and faithfulness of synthetic/; rejects copies."),
    "pretrain": ("classifiers", "Images without labels -> models/pretrained/, for recipe mae."),
    "zero_shot": (
        "classifiers",
        "Image-text models that saw none of our images, on the test split.",
    ),
    "promote": ("registry", "Register the best ViT by validation AUC; champion if better."),
    "report": ("reporting", "Everything above -> reports/index.html."),
    "summary": ("reporting", "Print the results of the last `dvc repro` as a short table."),
}
_SHARED = ("finetune", "synthesize", "pretrain")
"""Stages that several processes can share."""
_PATIENCE = 10.0
_INTERRUPTED = 130
"""Exit status that Typer gives to Control-C: 128 and the number of the signal."""
_Architecture = Annotated[str, typer.Option(help="A name from train.architectures.")]
_Trained = Annotated[str, typer.Option(help="From train.architectures or distill.students.")]
_Seed = Annotated[int, typer.Option(help="One of train.seeds.")]


def _stage(room: str, name: str) -> Callable[[], None]:
    def command() -> None:
        from dermaflux.params.choices import pretrains
        from dermaflux.params.load import load

        params = load()
        accelerate = params.runtime.accelerate
        if name == "synthesize":
            from dermaflux.generators import requirements

            requirements.require_room(params)
        if name == "finetune":
            from dermaflux.generators import requirements

            requirements.require_prompts(params)
        # One process says as well as several that a recipe does not pre-train.
        computes = name in _SHARED and (name != "pretrain" or pretrains(params.train.recipe))
        if computes and accelerate and not launch.launched():
            sys.exit(launch.launch(accelerate, name))
        importlib.import_module(f"dermaflux.{room}.{name}").run(params)
        if name == "ingest":
            from dermaflux import conditions

            conditions.warn(params)

    return command


for _name, (_room, _help) in _ROOMS.items():
    app.command(_name, help=_help)(_stage(_room, _name))


@app.command()
def caption(
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print requests, tokens, hours and cost; ask nobody.")
    ] = False,
    rate: Annotated[
        float, typer.Option(min=0.001, help="Requests per second for --estimate.")
    ] = 10.0,
) -> None:
    """Corpus -> captions/; with --estimate, what that would take."""
    from dermaflux import conditions
    from dermaflux.captions import caption
    from dermaflux.captions import estimate as estimates
    from dermaflux.params import VISION_LANGUAGE
    from dermaflux.params.load import load

    if estimate:
        estimates.run(load(), rate)
        return
    params = load()
    if params.caption.captioner in VISION_LANGUAGE:
        conditions.require_balance(params)
    caption.run(params)


@app.command()
def backbone(
    release: Annotated[
        Path | None,
        typer.Option(help="Train the released backbone into a new folder: 2.5 hours of one core."),
    ] = None,
) -> None:
    """Pin a diffusers repository, or train the tiny FluxPipeline -> models/backbone/."""
    from dermaflux.generators import backbone
    from dermaflux.params.load import load

    if release is None:
        backbone.run(load())
    else:
        backbone.release(release)


@app.command()
def train(architecture: _Architecture, seed: _Seed) -> None:
    """Train one cell of the matrix: every arm of one architecture and seed."""
    from dermaflux.classifiers import train
    from dermaflux.params.load import load
    from dermaflux.validation import mixture_gate

    train.run(load(), architecture, seed, mixture_gate.check)


@app.command()
def selector() -> None:
    """Real images -> models/selector/: the classifier that chooses synthetic ones, if any does."""
    from dermaflux.classifiers import selector
    from dermaflux.generators import requirements
    from dermaflux.params.load import load
    from dermaflux.validation import mixture_gate

    params = load()
    requirements.require_room(params)
    selector.run(params, mixture_gate.check)


@app.command()
def distill(
    architecture: Annotated[str, typer.Option(help="A name from distill.students.")], seed: _Seed
) -> None:
    """Train every arm of one student and seed, from the teacher of that seed."""
    from dermaflux.classifiers import distill
    from dermaflux.params.load import load
    from dermaflux.validation import mixture_gate

    distill.run(load(), architecture, seed, mixture_gate.check)


@app.command()
def evaluate(architecture: _Trained, seed: _Seed) -> None:
    """Score one trained cell on the held-out test split."""
    from dermaflux.classifiers import evaluate
    from dermaflux.params.load import load

    evaluate.run(load(), architecture, seed)


app.add_typer(cli_tools.app)
app.add_typer(cli_models.app)


def main() -> None:
    """Entry point: a fault of input or machine becomes one line on stderr and exit status 1.

    Any other exception is a fault of this program and keeps its traceback, without passwords.
    """
    launch.exit_on_signals()
    launch.end_with_parent()
    try:
        app()
    except Exception as error:
        sentence = sentence_for(launch.out_of_memory(error) or error)
        if sentence is None:
            # Typer sets an exception hook of its own, which would print passwords.
            print(redacted(traceback.format_exc()), file=sys.stderr, end="", flush=True)
            sys.exit(1)
        # All processes of a launch stop for the same reason. The launcher ends the others when the
        # first has gone, so one sentence is printed, or that of the only one with a reason.
        if os.environ.get("RANK", "0") != "0":
            time.sleep(_PATIENCE)
        print(f"dermaflux: {sentence}", file=sys.stderr, flush=True)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:
            print("dermaflux: interrupted", file=sys.stderr, flush=True)
        raise
