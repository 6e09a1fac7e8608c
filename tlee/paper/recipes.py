"""The papers' settings as parameter files: ``python -m tlee.paper.recipes`` writes ``recipes/*.yaml``.

A recipe is ``params.yaml``, with its comments, in which every parameter has the value of ``recipe_table``. The command
also prints the table of ``recipes/README.md``, which names the sources of the values.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from tlee.metrics import METRIC_NAMES
from tlee.paper.recipe_table import RECIPES, Recipe
from tlee.paths import find_root


def render(recipe: Recipe, template: str) -> str:
    """Return the file of ``recipe``: lines and comments of ``template``, a params.yaml, with the values of the recipe.

    Raises ``KeyError`` for a parameter of the template that has no value in the recipe.
    """
    lines, section, settings = [_header(recipe)], "", recipe.settings
    for line in template[template.index("\nseed:") :].splitlines():
        match = re.fullmatch(r"( *)(\w+):( [^#]*)?(#.*)?", line)
        if match:
            indent, key, value, comment = match.groups(default="")
            section = section if indent else key
            if value.strip():
                setting = f"{indent}{key}: {_as_yaml(settings[f'{section}.{key}' if indent else key])}"
                line = f"{setting.ljust(line.index('#') - 1)} {comment}" if comment else setting
        lines.append(line)
    return "\n".join(lines) + "\n"


def _header(recipe: Recipe) -> str:
    """Return the comment at the top of the file."""
    overrides = ", ".join(f"{key} {_as_yaml(value)}" for key, value in recipe.overrides.items()) or "none"
    return f"# {recipe.title}.\n# Settings specific to this recipe: {overrides}. Sources: recipes/README.md."


def _as_yaml(value: Any) -> str:
    """Format a value as in params.yaml; YAML would read 1e-4 as text."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return np.format_float_positional(value, trim="0") if isinstance(value, float) else str(value)


def markdown() -> str:
    """Format the table of all recipes as Markdown."""
    lines = [
        "| recipe | method | published | source | remark |",
        "|---|---|---|---|---|",
    ]
    for recipe in RECIPES:
        metric = METRIC_NAMES[recipe.settings["evaluate.metric"]]
        scores = "; ".join(f"{metric} {result.score} at {result.gmacs} GMACs" for result in recipe.published)
        sources = "; ".join(result.source for result in recipe.published)
        lines.append(f"| `{recipe.name}` | {recipe.method} | {scores or '-'} | {sources or '-'} | {recipe.remark} |")
    return "\n".join(lines)


if __name__ == "__main__":
    root = find_root(Path.cwd())
    template = (root / "params.yaml").read_text(encoding="utf-8")
    for recipe in RECIPES:
        (root / "recipes" / f"{recipe.name}.yaml").write_text(render(recipe, template), encoding="utf-8")
    print(markdown())
