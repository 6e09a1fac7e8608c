"""What the last run found, in a few lines for the terminal."""

from tlee.paths import FIGURES, METRICS, NOTEBOOKS
from tlee.records import load_json


def summarise() -> str:
    """The headline of the evaluation and of the latency, and what to open.

    Raises ``UserError`` if a stage has not been run.
    """
    methods = load_json(METRICS / "evaluate.json", "evaluate")
    latency = load_json(METRICS / "latency.json", "latency")
    full, tlee = methods["full"], methods["tlee"]
    lines = [
        f"Full network: {full['accuracy']:.1%} top-1 on test at {full['gmacs']:.3f} GMACs a video.",
        f"TLEE: {tlee['accuracy']:.1%} at {tlee['share_of_full']:.0%} of that, {tlee['frames']:.1f} frames a video;"
        f" median time {latency['tlee_to_full']:.0%} of the full network's on this machine.",
        "",
        "Open in JupyterLab (`make lab`):",
        *(f"  {path}" for path in sorted(NOTEBOOKS.glob("*.ipynb"))),
        "or look at:",
        *(f"  {FIGURES / name}.png" for name in ("evaluate/trade_off", "evaluate/strip_hard", "latency/systems")),
    ]
    return "\n".join(lines)
