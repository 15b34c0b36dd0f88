"""Where findings go. What must be set before MLflow is first imported is set here."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Retries draw their jitter from Python's global random state, which belongs to the training.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
