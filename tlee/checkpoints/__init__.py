"""Import of the authors' published checkpoints (see ``docs/checkpoints.md``).

A layout is one function in a file of its own: it infers the settings of a network from its tensor names and shapes.
"""

from tlee.checkpoints.importing import LAYOUTS, Imported, import_checkpoint
from tlee.checkpoints.report import report

__all__ = ["LAYOUTS", "Imported", "import_checkpoint", "report"]
