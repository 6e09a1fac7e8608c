"""Run notebooks in one process, which imports what they share only once; papermill and the kernels are not tested so.

``python -m support.cells NAME...`` runs the notebooks ``results/stripped/NAME.ipynb`` one after the other, from the
project's root, and stops at the first exception.
"""

import sys
from pathlib import Path

import matplotlib
import nbformat
from IPython.display import display

from tlee.resumption import remove_recorded


def run_cells(path: Path) -> None:
    """Run the code of all cells in a new namespace; values of their last lines are not shown."""
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    exec(compile(code, path, "exec"), {"display": display})


if __name__ == "__main__":
    matplotlib.use("agg")
    remove_recorded()
    for name in sys.argv[1:]:
        run_cells(Path(f"results/stripped/{name}.ipynb"))
