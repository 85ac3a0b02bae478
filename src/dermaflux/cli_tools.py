"""The commands around the stages: projects, experiments, images, models in use, data, MLflow.

Modules are imported when their command runs, as in `cli`, which takes these commands in.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="New folder of the project, for example lesions.")],
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="After an upgrade: rewrite code-hashes/, nothing else."),
    ] = False,
) -> None:
    """Create a project without a clone: dvc.yaml, params.yaml, grids, git and DVC."""
    from dermaflux import project

    (project.refresh if refresh else project.init)(folder)


@app.command()
def queue(
    name: Annotated[str, typer.Argument(help="A grid: NAME of grids/NAME.yaml.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many runs and how long; queue nothing.")
    ] = False,
) -> None:
    """Queue a grid of experiments in DVC, after saying how many runs and how long."""
    from dermaflux.sweeps import queue

    queue.run(name, dry_run)


@app.command()
def results(
    name: Annotated[str, typer.Argument(help="A grid: NAME of grids/NAME.yaml.")],
    submission: Annotated[
        list[Path] | None,
        typer.Option(
            help="A leaderboard.json measured elsewhere, or a folder of such; repeatable."
        ),
    ] = None,
) -> None:
    """Finished experiments of a grid -> reports/grids/NAME/index.html."""
    from dermaflux.sweeps import results

    results.run(name, submission or [])


@app.command()
def plots(
    revisions: Annotated[
        list[str] | None,
        typer.Argument(help="Commits, branches or experiments; default: HEAD and workspace."),
    ] = None,
) -> None:
    """DVC's plots of several revisions -> reports/plots.html, which needs no network."""
    from dermaflux.sweeps.views import plots as page

    page.run(revisions or [])


@app.command()
def dag() -> None:
    """Print the stages and what each depends on, narrower than `dvc dag`."""
    from dermaflux.sweeps.views import dag as graph

    graph.run()


@app.command()
def reproduce(
    image_id: Annotated[str, typer.Argument(help="image_id of a synthetic row.")],
    output: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("reproduced.png"),
    alone: Annotated[
        bool, typer.Option("--alone", help="Sample the image by itself, not in its batch.")
    ] = False,
) -> None:
    """Make one synthetic image again from its manifest row."""
    from dermaflux.generators import reproduce as reproduction

    reproduction.reproduce(image_id, output, alone=alone)


@app.command("compare-text-policies")
def compare_text_policies(
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Loss of the unadapted backbone with prompts trimmed and padded to 512; trains nothing."""
    from dermaflux.generators.flux_lora.training import text_policies
    from dermaflux.params.load import load

    text_policies.run(load(), output)


@app.command("export-lora")
def export_lora(
    output: Annotated[Path, typer.Argument(help="New file, for example lesions.safetensors.")],
    naming: Annotated[
        str,
        typer.Option("--format", help="kohya (ComfyUI, Forge, sd-scripts) or diffusers."),
    ] = "kohya",
    dtype: Annotated[str, typer.Option(help="fp32, or bf16 at half the size.")] = "fp32",
) -> None:
    """Write the fine-tuned LoRA as a file that other programs load."""
    from dermaflux.generators.flux_lora.files import exported

    exported.export(output, naming, dtype)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Instead of the champion of params.yaml: an MLflow model URI, such as "
            "models:/lesion-vit@champion or s3://..., or a folder."
        ),
    ] = None,
) -> None:
    """Probability of malignancy by the registry's champion. Not a medical device."""
    from dermaflux.params.load import load
    from dermaflux.registry import predict

    in_project = model is None and Path("params.yaml").is_file()
    predict.run(load() if in_project else None, images, model)


@app.command()
def register() -> None:
    """Register the champion that reports/promote.json names, as in a fresh clone."""
    from dermaflux.params.load import load
    from dermaflux.registry import register

    register.run(load())


@app.command()
def rollback(
    reason: Annotated[
        str, typer.Option(help="Why; stored with the version that loses the alias.")
    ] = "no reason given",
) -> None:
    """Give the registry's alias champion back to the version that had it before."""
    from dermaflux.params.load import load
    from dermaflux.registry import rollback

    rollback.run(load(), reason)


@app.command("export-onnx")
def export_onnx(
    output: Annotated[Path, typer.Argument(help="File to write, for example lesion.onnx.")],
    cell: Annotated[
        str | None,
        typer.Option(help="A trained classifier such as vit-0/mixture; default: the champion."),
    ] = None,
) -> None:
    """Write a classifier as ONNX: pictures in, calibrated probability out."""
    from dermaflux.params.load import load
    from dermaflux.registry import export_onnx

    export_onnx.run(load(), output, cell)


@app.command()
def deployment(
    cells: Annotated[list[str], typer.Argument(help="Trained classifiers, such as vit-0/mixture.")],
    calibration: Annotated[
        int, typer.Option(min=4, max=10_000, help="Training images that set int8's ranges.")
    ] = 256,
    latency_runs: Annotated[
        int, typer.Option("--runs", min=20, max=100_000, help="Timed predictions per file.")
    ] = 200,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a timed prediction.")] = 1,
) -> None:
    """Parameters, FLOP, MAC, file size, latency and accuracy of classifiers in fp32 and int8."""
    from dermaflux.params.load import load
    from dermaflux.registry import deployment

    deployment.run(load(), cells, calibration, latency_runs, threads)


@app.command()
def package(
    name: Annotated[str, typer.Argument(help="corpus, pool, lora or champion.")],
    folder: Annotated[Path, typer.Argument(help="New folder, for example shared/corpus.")],
) -> None:
    """Write shards or weights with their card, and Croissant metadata, for the hub."""
    from dermaflux.params.load import load
    from dermaflux.sharing import package as packages

    packages.run(load(), name, folder)


@app.command("push-to-hub")
def push_to_hub(
    name: Annotated[str, typer.Argument(help="corpus, pool, lora or champion.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face Hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make it public, if the licences permit it.")
    ] = False,
) -> None:
    """Push a package to the Hugging Face Hub, in one commit; private unless --public."""
    from dermaflux.params.load import load
    from dermaflux.sharing import upload

    upload.run(load(), name, repository, public)


@app.command()
def ui(port: Annotated[int, typer.Argument(min=1, max=65_535)] = 5000) -> None:
    """Serve MLflow's UI for this checkout's store on 127.0.0.1."""
    from dermaflux.tracking import ui

    sys.exit(ui.run(port))


@app.command()
def verify(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders; default: every output of DVC.")
    ] = None,
    remote: Annotated[
        str | None, typer.Option(help="Check this remote instead of the workspace.")
    ] = None,
    read: Annotated[
        bool, typer.Option("--read", help="Download and hash every object of the remote.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Upload what the remote lacks from the cache.")
    ] = False,
) -> None:
    """Check what DVC tracks against the hashes in dvc.lock, here or in a remote."""
    from dermaflux.tracking import verify

    verify.run(paths or [], remote, read=read, repair=repair)


@app.command()
def browse(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port on 127.0.0.1.")] = 8001,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the address, open no browser.")
    ] = False,
) -> None:
    """Show images, captions, provenance and neighbours of this run on a local page."""
    from dermaflux.browse import server

    server.run(port, not no_open)


@app.command()
def deliver() -> None:
    """Send what could not be logged while the MLflow server was down."""
    from dermaflux.tracking import undelivered

    undelivered.run()


@app.command()
def download(
    names: Annotated[list[str], typer.Argument(help="Names that `dermaflux sources` lists.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder to fill; default: the parameter data.")
    ] = None,
) -> None:
    """Download published datasets, or print how to get them; resumes and counts."""
    from dermaflux.download import datasets
    from dermaflux.params.load import load

    datasets.run(names, data or Path(load().data))


@app.command()
def sources(
    check: Annotated[
        bool, typer.Option("--check", help="Add up the paper's counts; fail when a sum is off.")
    ] = False,
) -> None:
    """List the twelve datasets: images, size, licence, access and how to get them."""
    from dermaflux.sources import overview

    overview.run(check)


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="New folder, for example data.")],
    pool: Annotated[
        int | None,
        typer.Option(help="Images, half of each class, as a released pool in place of the corpus."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the pool; another one has other lesions. Default: 0.")
    ] = None,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="The same pool with its labels permuted.")
    ] = False,
) -> None:
    """Render the phantom corpus in the eleven published layouts, or a pool of fresh lesions."""
    from dermaflux.errors import InputError
    from dermaflux.phantom import pool as released
    from dermaflux.phantom import write

    if pool is not None:
        released.write(folder, pool, seed or 0, shuffled=shuffled)
    elif seed is not None or shuffled:
        option = "--shuffled" if shuffled else f"--seed {seed}"
        raise InputError(f"{option} is an option of a pool; give --pool and a number of images")
    else:
        write(folder)
