"""Stage download: bring the data set that params.yaml names into build/<name>/raw/."""

import os

from stages.common import load_params, run_stage
from stages.data.cifake import download
from stages.data.image_sets import save_images
from stages.data.photo_set import collect
from stages.data.raw import IMAGES, NAMES, PHOTOS, DownloadParams
from stages.data.synthetic import synthetic_set
from stages.paths import ModelPaths


def main(paths: ModelPaths) -> None:
    """Bring the data set that params.yaml names."""
    params = load_params("download", DownloadParams, paths.name)
    raw, names = paths.raw / IMAGES, paths.raw / NAMES
    if params.dataset == "synthetic":
        paths.raw.mkdir(parents=True, exist_ok=True)
        data = synthetic_set(params.synthetic_images, params.synthetic_size, params.synthetic_seed, paths.raw)
        names.unlink(missing_ok=True)  # another data set's
        save_images(raw, data)
    elif params.dataset == "photos":
        collect.download(params, os.environ, paths.files, paths.raw / PHOTOS)
    else:
        download(params, os.environ.get("CIFAKE_ARCHIVE"), raw, names)


if __name__ == "__main__":
    run_stage(main)
