"""TLEE's three modules: branch heads, feature reuse and gates.

Each kind is a class in the file of its family with a line in the family's table; ``docs/extending.md`` shows how to add
one.
"""

from tlee.modules.branches import BRANCHES
from tlee.modules.gates import GATES
from tlee.modules.reuse import REUSES

__all__ = ["BRANCHES", "GATES", "REUSES"]
