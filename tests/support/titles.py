"""Titles of figures."""

import re

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def title(target: Axes | Figure) -> str:
    """Return the title of axes or of a whole figure in one line."""
    text = target.get_suptitle() if isinstance(target, Figure) else target.get_title(loc="left")
    return text.replace("\n", " ")


def states(text: str, *parts: str) -> bool:
    """True if ``text`` contains all ``parts`` (numbers and names), in this order and each as whole words."""
    return re.search(".*".join(rf"(?<![\w.]){re.escape(part)}(?!\w)" for part in parts), text) is not None
