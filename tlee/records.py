"""Small results as files that git and DVC can compare: metrics as JSON, tables as CSV."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tlee.checksums import load_sealed, save_sealed, sealed_lines
from tlee.paths import METRICS, PLOTS


def save_metrics(stage: str, metrics: dict[str, Any]) -> Path:
    """Write ``results/metrics/<stage>.json``, numbers rounded to 6 digits."""
    return save_sealed(METRICS / f"{stage}.json", rounded(metrics))


def save_table(stage: str, name: str, table: pd.DataFrame, *, checked: bool = False) -> Path:
    """Write ``results/plots/<stage>/<name>.csv``, numbers rounded to 6 digits.

    A ``checked`` table, which another stage reads, has a checksum in each line (``tlee.checksums``).
    """
    path = PLOTS / stage / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    path.write_text(sealed_lines(text) if checked else text, encoding="utf-8", newline="")
    return path


def load_json(path: Path, stage: str) -> dict[str, Any]:
    """Read ``path``; raise ``UserError`` that names the stage that writes it if it is missing or damaged."""
    return load_sealed(path, f"run `dvc repro {stage}`")


def rounded(content: Any) -> Any:
    """Return ``content`` after a round trip through JSON, numbers rounded to 6 digits."""
    return json.loads(json.dumps(content), parse_float=lambda text: float(f"{float(text):.6g}"))
