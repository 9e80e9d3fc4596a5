"""The offline room: one file a stage of the DVC pipeline (see dvc.yaml), and what stages share."""
