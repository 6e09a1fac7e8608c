"""Notebooks: what their first line does, and how the pipeline runs them."""

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
from tlee.figures.style import save
from tlee.params import Params, load_params
from tlee.paths import FIGURES, NOTEBOOKS, SOURCES, STRIPPED, find_root

INCH = 100  # pixels of a notebook's page

#: The kernel's own log: that it uses TCP, and how it ends when interrupted. What cells print is not part of it.
KERNEL_IS_QUIET = ["--Application.log_level=ERROR", "--IPKernelApp.no_stderr=True"]


def begin(*sections: str, overrides: dict[str, Any]) -> Params:
    """Go to the project's root, read the parameters, show those of ``sections``.

    ``overrides`` maps dotted keys to values that replace those of ``params.yaml``.
    """
    os.chdir(find_root(Path.cwd()))
    params = load_params(overrides=overrides)
    display(params.table(*sections))
    return params


def show(target: Axes | Figure, name: str) -> None:
    """Save a figure as ``results/figures/<name>.png`` and show that file."""
    figure = target if isinstance(target, Figure) else target.figure
    path = save(figure, FIGURES / f"{name}.png")
    plt.close(figure)
    display(Image(filename=path, width=INCH * figure.get_figwidth()))


def run_notebook(name: str) -> Path:
    """Run a notebook with papermill from the project's root; return the executed one.

    Those of the pipeline have been stripped into ``results/stripped/`` before, others are in ``notebooks/``.
    What their cells print is printed here too. Raises ``UserError`` where a cell raised one.
    """
    load_params()  # a typo is named at once, before a kernel starts
    places = (STRIPPED / f"{name}.ipynb", SOURCES / f"{name}.ipynb")
    source, target = next((path for path in places if path.exists()), None), NOTEBOOKS / f"{name}.ipynb"
    if source is None:
        raise UserError(f"{places[1]} does not exist: name a notebook without its folder and ending")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            source,
            target,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            extra_arguments=KERNEL_IS_QUIET,
        )
    except KeyboardInterrupt:
        raise UserError("interrupted; what is finished is kept, and the same command goes on from there") from None
    except NotJSONError:
        raise UserError(f"{source} is damaged: `dvc repro` makes it again from notebooks/{name}.ipynb") from None
    except PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(error.evalue) from None
        raise
    return target
