"""A classifier folder as a model that MLflow loads and serves anywhere, with its code.

The code is one archive, `code/dermaflux.zip`, from which Python imports: a tracking server takes a
request for every file.
"""

from __future__ import annotations

import io
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.registry.serving import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

LOADER = "dermaflux.registry.registry"
"""Module with `_load_pyfunc`; models registered earlier name it, too."""
_CODE = "code/dermaflux.zip"
_UNUSED = {"__pycache__", "layout"}  # the latter is what `dermaflux init` lays out
_DEPENDENCIES = (
    "mlflow", "numpy", "pandas", "pillow", "pyarrow", "safetensors", "scipy", "timm", "torch"
)  # fmt: skip


def _example() -> pd.DataFrame:
    """One uniform skin-coloured image: shows the input format without a patient's image."""
    import pandas as pd
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (128, 128), (205, 160, 140)).save(file, "PNG")
    return pd.DataFrame({"image": [file.getvalue()]})


def _write_code(archive: Path) -> None:
    """This package as a file that Python imports from; the same bytes for the same code."""
    import dermaflux

    package = Path(dermaflux.__file__).parent
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(package.rglob("*")):
            if path.is_file() and _UNUSED.isdisjoint(path.relative_to(package).parts):
                entry = zipfile.ZipInfo(path.relative_to(package.parent).as_posix())
                file.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def write(path: Path, folder: Path, run_id: str, model_id: str) -> None:
    """A model at `path` whose data are the classifier folder `folder`, for a run and its model."""
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.types.schema import ColSpec, DataType, Schema

    model = Model(run_id=run_id, model_id=model_id, model_uuid=model_id)
    kinds = (DataType.double, DataType.string, DataType.boolean, DataType.string)
    mlflow.pyfunc.save_model(
        path,
        loader_module=LOADER,
        data_path=str(folder),
        mlflow_model=model,
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.binary, "image")]),
            outputs=Schema(
                [
                    ColSpec(kind, name, required=False)
                    for kind, name in zip(kinds, COLUMNS, strict=True)
                ]
            ),
        ),
        input_example=_example(),
        pip_requirements=[f"{name}=={version(name)}" for name in _DEPENDENCIES],
    )
    _write_code(path / _CODE)
    # MLflow puts what this names on the path of Python; with `code_paths` it would be a folder.
    model.flavors[mlflow.pyfunc.FLAVOR_NAME][mlflow.pyfunc.CODE] = _CODE
    model.save(path / MLMODEL_FILE_NAME)
