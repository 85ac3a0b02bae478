"""MLflow's UI on the store that the stages use: `python -m dermaflux.tracking.ui [PORT]`."""

from __future__ import annotations

import os
import subprocess
import sys

from dermaflux.errors import InputError, redacted
from dermaflux.paths import project_root
from dermaflux.tracking import store


def main(arguments: list[str]) -> int:
    """Serve the store on 127.0.0.1, or say where it is when a server has it already."""
    uri = store.tracking_uri()
    if uri.startswith(("http:", "https:", "databricks")):
        print(f"The MLflow store is a server with a UI of its own; open {redacted(uri)}")
        return 0
    store.connect()
    # In the environment: others can read a command line, and the address may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    port = arguments[0] if arguments else "5000"
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", port]
    return subprocess.run(command, cwd=project_root(), check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        sys.exit(f"make ui: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
