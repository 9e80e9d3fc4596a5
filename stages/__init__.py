"""The offline room: one file a stage of the DVC pipeline (see dvc.yaml), and what stages share."""

import os

# Before any of them imports MLflow: it would tell the internet of itself.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
