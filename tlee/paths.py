"""Paths of the files that the stages write, relative to the project root."""

from pathlib import Path

from tlee.errors import UserError

#: Splits of the data set, and the names of the files of a folder with one file per split.
SPLITS = ("train", "val", "test")

SOURCES = Path("notebooks")

RESULTS = Path("results")
FRAMES = RESULTS / "frames"
MODELS = RESULTS / "models"
FEATURES = RESULTS / "features"
EDGE = RESULTS / "edge"
METRICS = RESULTS / "metrics"
PLOTS = RESULTS / "plots"
FIGURES = RESULTS / "figures"
STRIPPED = RESULTS / "stripped"
CODE = RESULTS / "code"
NOTEBOOKS = RESULTS / "notebooks"
POLICY = RESULTS / "policy.json"
GUARANTEED_POLICY = RESULTS / "guaranteed_policy.json"
TRACE = PLOTS / "evaluate" / "trace.csv"
FAILED_VIDEOS = RESULTS / "failed_videos.csv"
SEEDS = RESULTS / "seeds"

#: State of unfinished stages, outside the outputs that DVC removes before it runs a stage.
RUNS = Path("runs")

#: Written by DVC after each stage.
LOCK = Path("dvc.lock")


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` with ``params.yaml``; raise ``UserError`` if there is none."""
    for folder in (start, *start.parents):
        if (folder / "params.yaml").exists():
            return folder
    raise UserError(f"no params.yaml at or above {start}: work within the project")
