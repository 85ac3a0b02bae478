"""MLflow's UI on the store that the stages use: `dermaflux ui`, which `make ui` calls."""

from __future__ import annotations

import os
import subprocess
import sys

from dermaflux.errors import redacted
from dermaflux.paths import project_root
from dermaflux.tracking import store


def run(port: int) -> int:
    """Serve the store on 127.0.0.1, or say where it is when a server has it already.

    Returns the server's exit status.
    """
    uri = store.tracking_uri()
    if uri.startswith(("http:", "https:", "databricks")):
        print(f"The MLflow store is a server with a UI of its own; open {redacted(uri)}")
        return 0
    store.connect()
    # In the environment: others can read a command line, and the address may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    # Fixed words and a number, and no shell reads them.
    return subprocess.run(command, cwd=project_root(), check=False).returncode  # nosec
