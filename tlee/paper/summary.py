"""Results of the last run: a few lines for the terminal, and the table of the README."""

from typing import Any

from tlee.methods import display_name, in_order
from tlee.metrics import METRIC_NAMES
from tlee.params import load_params
from tlee.paths import FIGURES, METRICS, NOTEBOOKS
from tlee.records import load_json

STAGES = ("latency", "guarantee", "explain")
FIGURES_TO_OPEN = ("evaluate/trade_off", "explain/strip_most_expensive_correct", "latency/systems")


def summarise() -> str:
    """Return the main results of the last run, the notebooks and figures to open, and the command that compares it.

    Raises ``UserError`` if a stage has not been run.
    """
    methods = load_json(METRICS / "evaluate.json", "evaluate")
    params = load_params()
    latency, guarantee, explain = (load_json(METRICS / f"{stage}.json", stage) for stage in STAGES)
    lines = [
        methods_table(methods, METRIC_NAMES[params.evaluate.metric]),
        "",
        savings_line(explain, params.model.method),
        guarantee_line(guarantee, params.model.method),
        latency_line(latency),
        "",
        "Notebooks (`make lab`):",
        *(f"  {path}" for path in sorted(NOTEBOOKS.glob("*.ipynb"))),
        "Figures:",
        *(f"  {FIGURES / name}.png" for name in FIGURES_TO_OPEN),
        "Agreement with the committed run: `python -m tlee compare` (docs/reproducibility.md)",
    ]
    return "\n".join(lines)


def methods_table(methods: dict[str, Any], metric: str = "top-1") -> str:
    """Format the comparison on test as Markdown, from ``results/metrics/evaluate.json``."""
    lines = [
        f"| policy | {metric} | 95% interval | GMACs per video | relative to full network | frames |",
        "|---|---|---|---|---|---|",
    ]
    for method in in_order(name for name, row in methods.items() if isinstance(row, dict)):
        row = methods[method]
        interval = f"{row['low']:.1%} to {row['high']:.1%}" if "low" in row else ""
        lines.append(
            f"| {display_name(method)} | {row['score']:.1%} | {interval} | {row['gmacs']:.4f} "
            f"| {row['share_of_full']:.0%} | {row['frames']:.1f} |"
        )
    return "\n".join(lines)


def savings_line(explain: dict[str, Any], method: str = "tlee") -> str:
    """State the cost reduction and its two factors, from ``results/metrics/explain.json``."""
    return (
        f"{display_name(method)} needs {explain['saving']:.1f} times fewer GMACs than the full network: "
        f"{explain['by_frames']:.1f} times by fewer frames, {explain['by_depth']:.1f} times by shallower exits."
    )


def guarantee_line(guarantee: dict[str, Any], method: str = "tlee") -> str:
    """State the guarantee and the result on test, from ``results/metrics/guarantee.json``."""
    name, test = display_name(method), guarantee["test"]
    confidence, limit = f"With {guarantee['confidence']:.0%} confidence", f"{guarantee['max_harm']:g}% of unseen videos"
    if not guarantee["passed"]:
        needed, videos = guarantee["needed_videos"], guarantee["videos"]
        reason = (
            f"this requires {needed} held-out videos without harm, and {videos} are available."
            if videos < needed
            else f"the most conservative one already harms too many of the {videos} held-out videos."
        )
        return f"{confidence}, no early-exit policy of {name} can be guaranteed to harm at most {limit}: {reason}"
    return (
        f"{confidence}, {name} at {guarantee['share_of_full']:.0%} of the full network's GMACs harms at most {limit} "
        f"(correct at full depth, wrong at the exit taken): {guarantee['harmful']} of {guarantee['videos']} held-out "
        f"videos, {test['harmful']} of {test['videos']} test videos."
    )


def latency_line(latency: dict[str, Any]) -> str:
    """State the latency with real exits, from ``results/metrics/latency.json``."""
    full, real, _ = (name for name in latency if isinstance(latency[name], dict))
    of_full, of_real = latency[full], latency[real]
    return (
        f"Latency per video without decoding: {full} {of_full['p50']:.2f} ms; {real} {of_real['p50']:.2f} ms in the "
        f"median, {latency['real_to_ideal']:.2f} times the ideal, and {of_real['mean']:.2f} ms on average."
    )
