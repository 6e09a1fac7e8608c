"""Where the stages put what they make, below the project's root."""

from pathlib import Path

from tlee.errors import UserError

SPLITS = ("train", "val", "test")  # name the files of a folder that holds something of each video

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

RUNS = Path("runs")  # unfinished training, outside of what DVC removes before it runs a stage


def find_root(start: Path) -> Path:
    """The nearest folder at or above ``start`` that holds ``params.yaml``; ``UserError`` if none does."""
    for folder in (start, *start.parents):
        if (folder / "params.yaml").exists():
            return folder
    raise UserError(f"no params.yaml at or above {start}: work within the project")
