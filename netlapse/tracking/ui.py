"""Serve the local store on 127.0.0.1: what `./run ui` does."""

from __future__ import annotations

import os
import sys

from netlapse.tracking.secrecy import scrubbed
from netlapse.tracking.store import client_for, is_server, tracking_uri


def main() -> None:
    """Start MLflow's own server on the local store, with its checks of host and origin; further arguments, such as `--port 5001`, are MLflow's."""
    uri = tracking_uri()
    if is_server(uri):
        raise SystemExit(f"MLFLOW_TRACKING_URI names a server; open {scrubbed(uri)} in a browser (unset it to see the local store)")
    client_for(uri)
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # MLflow's job queue serves its assistant, not these pages
    print(f"netlapse: serving {scrubbed(uri)}; stop with Ctrl-C", flush=True)
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri  # not an argument: those are shown to everybody on the machine
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", *sys.argv[1:]]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
