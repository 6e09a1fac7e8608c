"""Import papermill without a grammar that it does not use.

papermill imports jsonschema to check notebooks. Beside JupyterLab, jsonschema can also check international addresses,
and takes 1.5 s at its import to prepare for it. Notebooks have none, and jsonschema works without it.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # its import fails

if TYPE_CHECKING:
    import papermill
    from nbformat.reader import NotJSONError
    from papermill.exceptions import PapermillExecutionError
else:
    papermill = import_module("papermill")
    NotJSONError = import_module("nbformat.reader").NotJSONError
    PapermillExecutionError = import_module("papermill.exceptions").PapermillExecutionError
