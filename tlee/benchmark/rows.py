"""A row of the benchmark's table."""

import pandas as pd

COLUMNS = ["part", "what", "value", "low", "high", "target"]


def row(part: str, what: str, value: float | pd.Series, target: float | None = None) -> tuple:
    """In the order of ``COLUMNS``; of a series of values the median and the quartiles."""
    if isinstance(value, pd.Series):
        low, middle, high = value.quantile([0.25, 0.5, 0.75])
        return part, what, middle, low, high, target
    return part, what, value, None, None, target
