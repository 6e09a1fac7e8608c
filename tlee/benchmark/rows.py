"""Rows of the benchmark's table."""

import pandas as pd

COLUMNS = ["part", "quantity", "value", "low", "high", "target"]


def row(part: str, quantity: str, value: float | pd.Series, target: float | None = None) -> tuple:
    """Return a row in the order of ``COLUMNS``; for a series of values with the median and the quartiles."""
    if isinstance(value, pd.Series):
        low, median, high = value.quantile([0.25, 0.5, 0.75])
        return part, quantity, median, low, high, target
    return part, quantity, value, None, None, target
