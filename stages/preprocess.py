"""Stage preprocess: merge, clean and split the photos into build/<name>/dataset/ and build/<name>/test/."""

from stages.common import load_params, run_stage, write_json
from stages.data.inbox import OWN, check_import
from stages.data.prepare import PreprocessParams, prepare
from stages.data.raw import DownloadParams
from stages.paths import ModelPaths


def main(paths: ModelPaths) -> None:
    """Prepare the data as params.yaml says."""
    params = load_params("preprocess", PreprocessParams, paths.name)
    dataset = load_params("download", DownloadParams, paths.name).dataset
    check_import()
    report = prepare(params, dataset, OWN, paths)
    write_json(paths.dataset_report, report)
    for part, counts in report["splits"].items():
        own_part = f", {counts['own_photos']} of them your own" if report["own_photos"]["images"] else ""
        print(f"{part}: {counts['images']:,} photos{own_part}")


if __name__ == "__main__":
    run_stage(main)
