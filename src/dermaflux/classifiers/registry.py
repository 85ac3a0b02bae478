"""The MLflow model registry: what a champion is, how it is stored and how it is loaded.

A registered version is a pyfunc model whose data are a classifier folder as `train` wrote it
(safetensors, JSON and CSV; nothing is pickled) and whose loader is this module, so
`mlflow models serve` and `mlflow.pyfunc.load_model` run the same code as `dermaflux predict`.
Input: one column `image`, the bytes of an image file (base64 in JSON requests). Output: columns
`probability` of malignancy in [0, 1] and `label` at the classifier's threshold.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaflux.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient

ALIAS = "champion"
_DATA = "classifier"  # the classifier folder's name inside every registered model
_DEPENDENCIES = ("mlflow", "numpy", "pandas", "pillow", "pyarrow", "safetensors", "timm", "torch")


@dataclass(frozen=True)
class Champion:
    """The registered version that carries the alias `champion`."""

    version: str
    folder: Path
    """Its classifier folder, in the store or a download of it."""
    tags: Mapping[str, str]


def prepare(encoded: bytes, side: int) -> np.ndarray[Any, Any]:
    """Encoded image -> uint8 (side, side, 3): upright, RGB, shorter side scaled, centre-cropped.

    Any exception of Pillow means that the bytes are not a whole image.
    """
    import numpy as np
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
    square = ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(square)


class _Served:
    """What MLflow calls: image bytes in, probabilities out."""

    def __init__(self, folder: Path) -> None:
        from dermaflux.classifiers import supervised

        self._model, self._config = supervised.load(folder)

    def predict(self, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Column `image` of encoded bytes -> columns `probability` and `label`."""
        import numpy as np
        import pandas as pd

        from dermaflux.classifiers import supervised

        side = int(self._config["image_size"])
        arrays = np.stack([prepare(bytes(encoded), side) for encoded in model_input["image"]])
        probability = supervised.probabilities(self._model, self._config, arrays)
        malignant = probability >= float(self._config["threshold"])
        return pd.DataFrame(
            {"probability": probability, "label": np.where(malignant, "malignant", "benign")}
        )


def _load_pyfunc(path: str) -> _Served:
    return _Served(Path(path))


def champion(client: MlflowClient, name: str) -> Champion | None:
    """The present champion of a registered model, or None when there is none yet."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    try:
        folder = Path(download_artifacts(artifact_uri=f"models:/{name}/{found.version}"))
    except (MlflowException, OSError) as error:
        raise InputError(
            f"the artefacts of {name} version {found.version} cannot be read ({error}); restore "
            f"mlruns/artifacts, or delete the alias {ALIAS!r} and run `dermaflux promote`"
        ) from None
    return Champion(str(found.version), folder / "data" / _DATA, dict(found.tags))


def _example() -> pd.DataFrame:
    """One flat skin-coloured picture: shows the input's form and holds nobody's image."""
    import pandas as pd
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (128, 128), (205, 160, 140)).save(file, "PNG")
    return pd.DataFrame({"image": [file.getvalue()]})


def _write_model(path: Path, folder: Path, run_id: str, model_id: str) -> None:
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, DataType, Schema

    import dermaflux

    mlflow.pyfunc.save_model(
        path,
        loader_module=__name__,
        data_path=str(folder),
        code_paths=[str(Path(dermaflux.__file__).parent)],
        mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.binary, "image")]),
            outputs=Schema(
                [ColSpec(DataType.double, "probability"), ColSpec(DataType.string, "label")]
            ),
        ),
        input_example=_example(),
        pip_requirements=[f"{name}=={version(name)}" for name in _DEPENDENCIES],
    )


def register(
    client: MlflowClient,
    name: str,
    folder: Path,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
) -> str:
    """Store a classifier folder as a new version, make it the champion and return its number.

    The alias moves last, so a process that dies on the way leaves the old champion in place.
    """
    from mlflow.entities import LoggedModelStatus
    from mlflow.exceptions import MlflowException

    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name, run_id, dict(tags), model_type="pyfunc")
    with tempfile.TemporaryDirectory() as scratch:
        model, data = Path(scratch) / "model", Path(scratch) / _DATA
        shutil.copytree(folder, data)
        _write_model(model, data, run_id, logged.model_id)
        client.log_model_artifacts(logged.model_id, str(model))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    try:
        client.create_registered_model(
            name, description="Skin-lesion classifier. Not a medical device."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(
        name,
        logged.artifact_location,
        run_id,
        tags=dict(tags),
        description=description,
        model_id=logged.model_id,
    )
    client.set_registered_model_alias(name, ALIAS, created.version)
    return str(created.version)
