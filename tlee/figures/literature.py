"""Published results beside each other, and beside what was measured here."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from tlee.figures.style import HIGHLIGHT, headline, percent, styled
from tlee.metrics import METRIC_NAMES
from tlee.paper.literature import NOT_STATED

DATA_SETS = {"activitynet": "ActivityNet 1.3", "mini_kinetics": "Mini-Kinetics", "hvu": "HVU"}

#: What a network is called, and its marker.
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

_EDGE, _FAINT = "#666666", "#BBBBBB"
_ROW = 0.19  # inches of a line of the key


@styled
def published_results(table: pd.DataFrame, measured: pd.DataFrame | None = None) -> Figure:
    """Score against GMACs a video, one panel a data set, with a key of all points, best on top.

    ``table``: see ``load_published``. ``measured``: ``dataset``, ``method``, ``gmacs``, ``score`` (0..1) and ``label``,
    what the key says of the point; rows of data sets that ``table`` does not have are not drawn.
    """
    names = list(table["dataset"].unique())
    measured = pd.DataFrame(columns=["dataset"]) if measured is None else measured[measured["dataset"].isin(names)]
    keys = [_key(table[table["dataset"] == name], measured[measured["dataset"] == name]) for name in names]
    heights = [max(1.6, _ROW * len(key)) + 0.6 for key in keys]
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
    """What is labelled in a panel, best first: ``gmacs``, ``score``, ``label``, ``marker``, ``kind``.

    A curve is labelled at its end.
    """
    ends = rows[rows["curve"]].sort_values("gmacs").groupby("backbone", sort=False).tail(1)
    points = pd.concat([rows[~rows["curve"]], ends.assign(method=ends["method"] + "'s curve")])
    stated = points["pretraining"].replace(NOT_STATED, "?")
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
    """The points, and beside the panel their labels, each tied to its point."""
    for place, row in enumerate(key.itertuples()):
        here, point = row.kind == "measured", (row.gmacs, 100 * row.score)
        color = HIGHLIGHT if here else _EDGE
        if row.kind != "curve":
            face, edge = (HIGHLIGHT, "white") if here else ("white", _EDGE)
            axes.plot(
                *point, row.marker, markersize=7, markerfacecolor=face, markeredgecolor=edge, zorder=4 if here else 3
            )
        axes.annotate(
            f"{100 * row.score:.1f} at {row.gmacs:.3g}: {row.label}",
            point,
            xytext=(1.05, 1 - (place + 0.5) / len(key)),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=color if here else "#333333",
            fontweight="bold" if here else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": color if here else _FAINT,
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
    """Markers of networks, the curve, and what was measured here, above the first panel."""
    look = {"linestyle": "none", "markersize": 7}
    handles = [
        Line2D([], [], marker=marker, markerfacecolor="white", markeredgecolor=_EDGE, label=name, **look)
        for marker, name in FAMILIES.items()
        if marker in set(key.loc[key["kind"] == "published", "marker"])
    ]
    if (key["kind"] == "curve").any():
        handles.append(Line2D([], [], color=_FAINT, linewidth=2.5, marker=".", label="printed curve"))
    if (key["kind"] == "measured").any():
        face = {"markerfacecolor": HIGHLIGHT, "markeredgecolor": "white"}
        handles.append(Line2D([], [], marker="o", label="measured here", **face, **look))
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=3, borderaxespad=0.2)
    axes.annotate(
        f"score at GMACs: method, network (pretraining; ?: {NOT_STATED})",
        (1.05, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        fontstyle="italic",
        annotation_clip=False,
    )


def _finding(table: pd.DataFrame, measured: pd.DataFrame) -> str:
    """How far another method and another network get from FrameExit with ResNet-50, for no more GMACs."""
    whose = (
        "Published results (filled points: measured here)"
        if len(measured)
        else "Published results, none of them measured here"
    )
    plain = table[~table["curve"]]
    early = plain[plain["method"] == "FrameExit"]
    for start in early[early["backbone"] == "resnet50"].itertuples():
        near = plain[(plain["dataset"] == start.dataset) & (plain["gmacs"] <= start.gmacs)]
        own = near["method"].str.startswith("FrameExit")
        ways = {
            "another method": near[~own & near["backbone"].str.contains("resnet50")],
            "another network and its pretraining": near[own & (near["backbone"] != "resnet50")],
        }
        gains = [
            f"{100 * (rows['score'].max() - start.score):+.1f} by {way}" for way, rows in ways.items() if len(rows)
        ]
        if gains:
            where = DATA_SETS.get(start.dataset, start.dataset)
            return f"{whose}. {where}, points over FrameExit with ResNet-50, for no more GMACs: {', '.join(gains)}"
    best = plain.loc[plain["score"].idxmax()]
    return f"{whose}. The highest score is {percent(best['score'])}, by {best['method']}"
