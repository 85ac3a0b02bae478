"""The commands about models: prompt padding, files for other programs, the registry, the hub.

Modules are imported when their command runs, as in `cli`, which takes these commands in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


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
