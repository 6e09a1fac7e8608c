"""Setup and figures of the notebooks."""

import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlee.figures.style import figure_of, save
from tlee.params import Params, load_params
from tlee.paths import FIGURES, find_root
from tlee.reproducibility import can_pin, is_pinned

PIXELS_PER_INCH = 100  # of a figure shown in a notebook


def begin(*sections: str, overrides: dict[str, Any]) -> Params:
    """Change to the project's root, read the parameters and display those of ``sections``.

    ``overrides`` maps dotted keys to values that replace those of ``params.yaml``.
    """
    os.chdir(find_root(Path.cwd()))
    params = load_params(overrides=overrides)
    display(params.table(*sections))
    if params.reproducible and can_pin() and not is_pinned():
        print("This kernel was not started by the kit: its numbers may differ from `dvc repro`'s in the last digits.")
    return params


def show(target: Axes | Figure, name: str) -> None:
    """Save a figure as ``results/figures/<name>.png`` and display that file."""
    figure = figure_of(target)
    path = save(figure, FIGURES / f"{name}.png")
    plt.close(figure)
    display(Image(filename=path, width=PIXELS_PER_INCH * figure.get_figwidth()))
