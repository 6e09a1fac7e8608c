"""Published results, with those measured here added."""

from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from tlee.figures.style import HIGHLIGHT, headline, percent, styled
from tlee.metrics import METRIC_NAMES

DATA_SETS = {"activitynet": "ActivityNet 1.3", "mini_kinetics": "Mini-Kinetics", "hvu": "HVU"}

#: Display name and marker of each network.
NETWORKS = {
    "resnet": ("ResNet", "o"),
    "resnet50": ("ResNet-50", "o"),
    "efficientnet": ("EfficientNet", "s"),
    "efficientnet_b3": ("EfficientNet-B3", "s"),
    "x3d_s": ("X3D-S", "^"),
    "3d_resnet18": ("3D-ResNet-18", "^"),
    "2d_3d_resnet": ("2D and 3D ResNet", "^"),
    "mobilenet_v2+resnet50": ("MobileNetV2 and ResNet-50", "D"),
}
FAMILIES = {"o": "ResNet", "s": "EfficientNet", "^": "3D network", "D": "two networks", "P": "other network"}

_NOT_STATED = "not stated"  # value of `pretraining` where the source gives none
_EDGE, _FAINT = "#666666", "#BBBBBB"
_LINE_HEIGHT = 0.19  # of the key, in inches


@styled
def published_results(table: pd.DataFrame, measured: pd.DataFrame | None = None) -> Figure:
    """Draw score against GMACs per video, one panel per data set, with a key of all points, best on top.

    ``table``: ``dataset``, ``metric``, ``method``, ``backbone``, ``pretraining`` (``not stated`` where the source gives
    none), ``gmacs``, ``score`` (0..1), ``curve`` (true for points of a printed curve). ``measured``: ``dataset``,
    ``method``, ``gmacs``, ``score`` (0..1) and ``label`` (text of the key); other data sets are not drawn.
    """
    names = list(table["dataset"].unique())
    measured = pd.DataFrame(columns=["dataset"]) if measured is None else measured[measured["dataset"].isin(names)]
    keys = [_key(table[table["dataset"] == name], measured[measured["dataset"] == name]) for name in names]
    heights = [max(1.6, _LINE_HEIGHT * len(key)) + 0.6 for key in keys]
    figure, panels = plt.subplots(
        len(names), 1, figsize=(9.5, sum(heights) + 1.0), height_ratios=heights, layout="constrained", squeeze=False
    )
    for axes, name, key in zip(panels[:, 0], names, keys, strict=True):
        rows = table[table["dataset"] == name]
        for _, curve in rows[rows["curve"]].groupby("backbone", sort=False):
            axes.plot(curve["gmacs"], 100 * curve["score"], ".-", color=_FAINT, linewidth=2.5, zorder=1)
        _draw(axes, key)
        axes.set_ylabel(f"{DATA_SETS.get(name, name)}: {METRIC_NAMES[rows['metric'].iloc[0]]} (%)")
    panels[-1, 0].set_xlabel("GMACs per video (log scale)")
    _legend(panels[0, 0], pd.concat(keys))
    headline(figure, _finding(table, measured))
    return figure


def _key(rows: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the labelled points of a panel, best first: ``gmacs``, ``score``, ``label``, ``marker``, ``kind``.

    A curve is labelled at its end.
    """
    ends = rows[rows["curve"]].sort_values("gmacs").groupby("backbone", sort=False).tail(1)
    points = pd.concat([rows[~rows["curve"]], ends.assign(method=ends["method"] + "'s curve")])
    stated = points["pretraining"].replace(_NOT_STATED, "?")
    networks = [NETWORKS.get(backbone, (backbone, "P")) for backbone in points["backbone"]]
    points = points.assign(
        label=[
            f"{method}, {network} ({pretraining})"
            for method, (network, _), pretraining in zip(points["method"], networks, stated, strict=True)
        ],
        marker=[marker for _, marker in networks],
        kind=points["curve"].map({True: "curve", False: "published"}),
    )
    parts = [part for part in (points, measured.assign(marker="o", kind="measured")) if len(part)]
    kept = pd.concat(parts)[["gmacs", "score", "label", "marker", "kind"]]
    return kept.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _draw(axes: Axes, key: pd.DataFrame) -> None:
    """Draw the points, and their labels beside the panel, each connected to its point."""
    for place, row in enumerate(key.itertuples()):
        is_measured, point = row.kind == "measured", (row.gmacs, 100 * row.score)
        color = HIGHLIGHT if is_measured else _EDGE
        if row.kind != "curve":
            face, edge = (HIGHLIGHT, "white") if is_measured else ("white", _EDGE)
            axes.plot(
                *point,
                row.marker,
                markersize=7,
                markerfacecolor=face,
                markeredgecolor=edge,
                zorder=4 if is_measured else 3,
            )
        axes.annotate(
            f"{100 * row.score:.1f} at {row.gmacs:.3g}: {row.label}",
            point,
            xytext=(1.05, 1 - (place + 0.5) / len(key)),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=color if is_measured else "#333333",
            fontweight="bold" if is_measured else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": color if is_measured else _FAINT,
                "linewidth": 0.6,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08, y=0.06)
    axes.grid()


def _legend(axes: Axes, key: pd.DataFrame) -> None:
    """Add the legend above the first panel: markers of networks, the curve, and points measured here."""
    point = partial(Line2D, [], [], linestyle="none", markersize=7)
    handles = [
        point(marker=marker, markerfacecolor="white", markeredgecolor=_EDGE, label=name)
        for marker, name in FAMILIES.items()
        if marker in set(key.loc[key["kind"] == "published", "marker"])
    ]
    if (key["kind"] == "curve").any():
        handles.append(Line2D([], [], color=_FAINT, linewidth=2.5, marker=".", label="printed curve"))
    if (key["kind"] == "measured").any():
        handles.append(point(marker="o", markerfacecolor=HIGHLIGHT, markeredgecolor="white", label="measured here"))
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=3, borderaxespad=0.2)
    axes.annotate(
        f"score at GMACs: method, network (pretraining; ?: {_NOT_STATED})",
        (1.05, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        fontstyle="italic",
        annotation_clip=False,
    )


def _finding(table: pd.DataFrame, measured: pd.DataFrame) -> str:
    """State the gain of other methods and of other networks over FrameExit with ResNet-50, for no more GMACs."""
    origin = (
        "Published results (filled points: measured here)"
        if len(measured)
        else "Published results, none of them measured here"
    )
    plain = table[~table["curve"]]
    early = plain[plain["method"] == "FrameExit"]
    for reference in early[early["backbone"] == "resnet50"].itertuples():
        rivals = plain[(plain["dataset"] == reference.dataset) & (plain["gmacs"] <= reference.gmacs)]
        is_frameexit = rivals["method"].str.startswith("FrameExit")
        changes = {
            "another method": rivals[~is_frameexit & rivals["backbone"].str.contains("resnet50")],
            "another network and its pretraining": rivals[is_frameexit & (rivals["backbone"] != "resnet50")],
        }
        gains = [
            f"{100 * (rows['score'].max() - reference.score):+.1f} by {change}"
            for change, rows in changes.items()
            if len(rows)
        ]
        if gains:
            data_set = DATA_SETS.get(reference.dataset, reference.dataset)
            return f"{origin}. {data_set}, points over FrameExit with ResNet-50, for no more GMACs: {', '.join(gains)}"
    best = plain.loc[plain["score"].idxmax()]
    return f"{origin}. The highest score is {percent(best['score'])}, by {best['method']}"
