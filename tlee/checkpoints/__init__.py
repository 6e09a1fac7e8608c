"""The authors' published checkpoints as weights of this kit (see ``docs/checkpoints.md``).

A layout is one function in a file of its own: it reads a network's settings off the names and shapes of the tensors.
"""

from tlee.checkpoints.importing import LAYOUTS, Imported, import_checkpoint
from tlee.checkpoints.report import report

__all__ = ["LAYOUTS", "Imported", "import_checkpoint", "report"]
