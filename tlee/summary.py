"""What a run found, in a few lines for the terminal and in the table of the README."""

from typing import Any

from tlee.methods import NAMES
from tlee.metrics import METRIC_NAMES
from tlee.params import load_params
from tlee.paths import FIGURES, METRICS, NOTEBOOKS
from tlee.records import load_json

FIGURES_TO_OPEN = ("evaluate/trade_off", "explain/strip_latest_right", "latency/systems")


def summarise() -> str:
    """The headline of the last run, and what to open.

    Raises ``UserError`` if a stage has not been run.
    """
    methods = load_json(METRICS / "evaluate.json", "evaluate")
    latency = load_json(METRICS / "latency.json", "latency")
    lines = [
        methods_table(methods, METRIC_NAMES[load_params().evaluate.metric]),
        "",
        latency_line(latency),
        "",
        "Open in JupyterLab (`make lab`):",
        *(f"  {path}" for path in sorted(NOTEBOOKS.glob("*.ipynb"))),
        "or look at:",
        *(f"  {FIGURES / name}.png" for name in FIGURES_TO_OPEN),
    ]
    return "\n".join(lines)


def methods_table(methods: dict[str, Any], metric: str = "top-1") -> str:
    """The comparison on test as a Markdown table, from ``results/metrics/evaluate.json``."""
    lines = [
        f"| policy | {metric} | 95% interval | GMACs a video | of the full network | frames |",
        "|---|---|---|---|---|---|",
    ]
    for method, name in NAMES.items():
        if method not in methods:
            continue
        row = methods[method]
        interval = f"{row['low']:.1%} to {row['high']:.1%}" if "low" in row else ""
        lines.append(
            f"| {name} | {row['score']:.1%} | {interval} | {row['gmacs']:.4f} "
            f"| {row['share_of_full']:.0%} | {row['frames']:.1f} |"
        )
    return "\n".join(lines)


def latency_line(latency: dict[str, Any]) -> str:
    """Medians of a video, from ``results/metrics/latency.json``."""
    full, real, _ = (name for name in latency if isinstance(latency[name], dict))
    return (
        f"Median time of a video without decoding: {full} {latency[full]['p50']:.2f} ms, "
        f"{real} {latency[real]['p50']:.2f} ms, {latency['real_to_ideal']:.2f} times its ideal."
    )
