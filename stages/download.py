"""Stage download: bring the data set that params.yaml names into build/<name>/raw/."""

import os

from stages.common import keep_only, load_params, recipe_of, run_stage
from stages.data.cifake import download
from stages.data.image_sets import save_images
from stages.data.photo_set import collect
from stages.data.photo_set.synthetic import write_synthetic
from stages.data.raw import IMAGES, PHOTOS, DownloadParams
from stages.data.synthetic import synthetic_set
from stages.paths import ModelPaths


def main(paths: ModelPaths) -> None:
    """Bring the data set that params.yaml names."""
    params = load_params("download", DownloadParams, paths.name)
    images, photos = paths.raw / IMAGES, paths.raw / PHOTOS
    of_photos = params.dataset == "photos"
    if params.dataset == "synthetic" and recipe_of(paths.name) == "frozen":
        of_photos = True
        write_synthetic(params, photos)
    elif params.dataset == "synthetic":
        paths.raw.mkdir(parents=True, exist_ok=True)
        data = synthetic_set(params.synthetic_images, params.synthetic_size, params.synthetic_seed, paths.raw)
        paths.names.unlink(missing_ok=True)  # another data set's
        save_images(images, data)
    elif params.dataset == "photos":
        collect.download(params, os.environ, paths.files, photos)
    else:
        download(params, os.environ.get("CIFAKE_ARCHIVE"), images, paths.names)
    keep_only(photos if of_photos else images)


if __name__ == "__main__":
    run_stage(main)
