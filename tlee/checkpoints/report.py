"""Report of an import: the lines of params.yaml to set, with their current values."""

from typing import Any

import yaml

from tlee.checkpoints.importing import Imported
from tlee.params import Params


def report(imported: Imported) -> str:
    """Return the name of the written file, the notes, and a snippet of YAML that marks the lines to change."""
    lines = [f"wrote {imported.file}: {len(imported.classes)} classes"]
    lines += [f"note: {note}" for note in imported.notes]
    return "\n".join([*lines, "set in params.yaml:", "", snippet(imported.settings, imported.current)])


def snippet(settings: dict[str, Any], current: Params) -> str:
    """Return ``settings`` (by dotted key) as YAML; values that differ in ``current`` are in a comment."""
    lines: list[str] = []
    for dotted in sorted(settings, key=lambda key: list(Params.model_fields).index(key.split(".")[0])):
        section, key = dotted.split(".")
        if f"{section}:" not in lines:
            lines.append(f"{section}:")
        now = getattr(getattr(current, section), key)
        change = "" if now == settings[dotted] else f"  # now {_scalar(now)}"
        lines.append(f"  {key}: {_scalar(settings[dotted])}{change}")
    return "\n".join(lines)


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value).splitlines()[0]
