"""Parameters of which the quick check takes some."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(fast: Collection, values: Iterable) -> list[Any]:
    """Return ``values`` as parameters of a test, which is slow with all but those that are ``fast``."""
    return [pytest.param(value, marks=() if value in fast else pytest.mark.slow) for value in values]
