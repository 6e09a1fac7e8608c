"""What a run found, in a few lines for the terminal and in the table of the README."""

from typing import Any

from tlee.methods import NAMES
from tlee.metrics import METRIC_NAMES
from tlee.params import load_params
from tlee.paths import FIGURES, METRICS, NOTEBOOKS
from tlee.records import load_json

STAGES = ("latency", "guarantee", "explain")
FIGURES_TO_OPEN = ("evaluate/trade_off", "explain/strip_latest_right", "latency/systems")


def summarise() -> str:
    """The headline of the last run, and what to open.

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


def savings_line(explain: dict[str, Any], method: str = "tlee") -> str:
    """What saves, from ``results/metrics/explain.json``."""
    return (
        f"{NAMES[method]} is {explain['saving']:.1f} times cheaper than the full network: {explain['by_frames']:.1f} "
        f"times by fewer frames, {explain['by_depth']:.1f} times by shallower exits."
    )


def guarantee_line(guarantee: dict[str, Any], method: str = "tlee") -> str:
    """What is promised, and what came of it on test, from ``results/metrics/guarantee.json``."""
    limit, test = f"{guarantee['max_loss']:g}% of unseen videos", guarantee["test"]
    if not guarantee["passed"]:
        return (
            f"No exit of {NAMES[method]} is sure to spoil at most {limit}: that takes {guarantee['needed_videos']} "
            f"videos of which none is spoilt, {guarantee['videos']} were at hand."
        )
    return (
        f"{guarantee['confidence']:.0%} sure, {NAMES[method]} at {guarantee['share_of_full']:.0%} of the GMACs spoils "
        f"at most {limit}: it spoilt {guarantee['harmful']} of the {guarantee['videos']} that it was tested on, and "
        f"{test['harmful']} of {test['videos']} on test."
    )


def latency_line(latency: dict[str, Any]) -> str:
    """Of ``results/metrics/latency.json``."""
    full, real, _ = (name for name in latency if isinstance(latency[name], dict))
    of_full, of_real = latency[full], latency[real]
    return (
        f"Time of a video without decoding: {full} {of_full['p50']:.2f} ms; {real} {of_real['p50']:.2f} ms in the "
        f"median, {latency['real_to_ideal']:.2f} times its ideal, and {of_real['mean']:.2f} ms in the mean."
    )
