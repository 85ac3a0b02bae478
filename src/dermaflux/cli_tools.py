"""The commands around the stages: projects, experiments, images, data, MLflow.

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
