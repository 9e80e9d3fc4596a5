"""Stage download: bring the data set that params.yaml names into build/raw/."""

import os

from stages.common import load_params, run_stage
from stages.data.cifake import download
from stages.data.image_sets import save_images
from stages.data.raw import NAMES, RAW, DownloadParams
from stages.data.synthetic import synthetic_set


def main() -> None:
    """Bring the data set that params.yaml names."""
    params = load_params("download", DownloadParams)
    if params.dataset == "synthetic":
        RAW.parent.mkdir(parents=True, exist_ok=True)
        data = synthetic_set(params.synthetic_images, params.synthetic_size, params.synthetic_seed, RAW.parent)
        NAMES.unlink(missing_ok=True)  # another data set's
        save_images(RAW, data)
    else:
        download(params, os.environ.get("CIFAKE_ARCHIVE"), RAW, NAMES)


if __name__ == "__main__":
    run_stage(main)
