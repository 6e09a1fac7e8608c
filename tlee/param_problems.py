"""Problems of ``params.yaml`` in words: the parameter, its value and what it should be."""

import difflib
import math
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails


def explain(problem: ErrorDetails, params: type[BaseModel]) -> str:
    """Return what is wrong with a parameter of the sections ``params``, and what it should be, in a line."""
    location = [str(part) for part in problem["loc"]]
    key, value = ".".join(location), problem["input"]
    if not location:
        return problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(location[-1], _known_keys(params, location[:-1]), n=1)
        return f"unknown key `{key}`" + (f", did you mean `{close[0]}`?" if close else "; remove it")
    if problem["type"] == "missing":
        return f"`{key}` is missing; `git diff params.yaml` shows what was removed"
    if problem["type"] == "model_type":
        return f"`{key}` is {value!r}, should be a section"
    rule = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    needs_number = problem["type"] in ("float_type", "value_error")
    hint = f" (write it as {float(value)})" if needs_number and _is_number_as_text(value) else ""
    return f"`{key}` is {value!r}, {rule}{hint}"


def _is_number_as_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _known_keys(params: type[BaseModel], section: list[str]) -> list[str]:
    model: Any = params
    for name in section:
        model = model.model_fields[name].annotation
    return list(model.model_fields)
