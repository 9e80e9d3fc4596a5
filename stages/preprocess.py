"""Stage preprocess: merge, clean and split the photos into build/dataset/."""

from pathlib import Path

from stages.common import load_params, run_stage, write_json
from stages.data.inbox import OWN, check_import
from stages.data.prepare import PreprocessParams, prepare
from stages.data.raw import RAW, DownloadParams

OUT = Path("build/dataset")
REPORT = Path("reports/cifake/dataset.json")


def main() -> None:
    """Prepare the data as params.yaml says."""
    params, dataset = load_params("preprocess", PreprocessParams), load_params("download", DownloadParams).dataset
    check_import()
    report = prepare(params, dataset, RAW, OWN, OUT)
    write_json(REPORT, report)
    for part, counts in report["splits"].items():
        own_part = f", {counts['own_photos']} of them your own" if report["own_photos"]["images"] else ""
        print(f"{part}: {counts['images']:,} photos{own_part}")


if __name__ == "__main__":
    run_stage(main)
