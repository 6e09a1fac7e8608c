"""Notebooks: their setup and figures, and their execution by the pipeline."""

import os
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import papermill
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nbformat.reader import NotJSONError
from papermill.exceptions import PapermillExecutionError

from tlee.errors import UserError
from tlee.figures.style import figure_of, save
from tlee.params import Params, load_params
from tlee.paths import FIGURES, NOTEBOOKS, SOURCES, STRIPPED, find_root

PIXELS_PER_INCH = 100  # of a figure shown in a notebook

#: Silences the kernel's own log (its use of TCP, its end when interrupted), not the output of cells.
QUIET_KERNEL = ["--Application.log_level=ERROR", "--IPKernelApp.no_stderr=True"]


def begin(*sections: str, overrides: dict[str, Any]) -> Params:
    """Change to the project's root, read the parameters and display those of ``sections``.

    ``overrides`` maps dotted keys to values that replace those of ``params.yaml``.
    """
    os.chdir(find_root(Path.cwd()))
    params = load_params(overrides=overrides)
    display(params.table(*sections))
    return params


def show(target: Axes | Figure, name: str) -> None:
    """Save a figure as ``results/figures/<name>.png`` and display that file."""
    figure = figure_of(target)
    path = save(figure, FIGURES / f"{name}.png")
    plt.close(figure)
    display(Image(filename=path, width=PIXELS_PER_INCH * figure.get_figwidth()))


def run_notebook(name: str) -> Path:
    """Run a notebook with papermill from the project's root; return the path of the executed copy.

    Notebooks of the pipeline are read from ``results/stripped/``, others from ``notebooks/``. The output of cells is
    also printed here. Raises ``UserError`` if a cell raised one, the notebook is missing or damaged, or the run was
    interrupted.
    """
    load_params()  # reports a typo before a kernel starts
    candidates = (STRIPPED / f"{name}.ipynb", SOURCES / f"{name}.ipynb")
    source, target = next((path for path in candidates if path.exists()), None), NOTEBOOKS / f"{name}.ipynb"
    if source is None:
        raise UserError(f"{candidates[1]} does not exist: name a notebook without its folder and ending")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            source,
            target,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            extra_arguments=QUIET_KERNEL,
        )
    except KeyboardInterrupt:
        raise UserError("interrupted; what is finished is kept: run the same command again") from None
    except NotJSONError:
        raise UserError(f"{source} is damaged: `dvc repro` makes it again from notebooks/{name}.ipynb") from None
    except PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(error.evalue) from None
        raise
    return target
