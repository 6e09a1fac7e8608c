"""Types of the parameters as text: YAML that is strict, numbers with bounds, and text in a given form."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator


class StrictLoader(yaml.SafeLoader):
    """YAML without duplicate keys (plain YAML silently keeps the last) and with ``1e-05`` as a number.

    ``dvc exp run -S`` writes numbers in this form, which is text in YAML 1.1.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.YAMLError(f"`{key}` appears twice{key_node.start_mark}")
            seen.add(key)
        return super().construct_mapping(node, deep)


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


class Section(BaseModel):
    """A section of the parameters: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _auto_or_share(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto":
        return value
    if is_number and 0 <= value <= 1:
        return float(value)  # pydantic would warn about the integer 1
    raise ValueError("should be `auto` or a number from 0 to 1")


def _auto_or_count(least: int, of: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= least):
            return value
        raise ValueError(f"should be `auto` or a number of {of}")

    return check


def _pattern(value: str | None) -> str | None:
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"should be a regular expression ({error})") from None
    return value


#: Form of the address of a cluster in ``compute.jobs``.
_CLUSTER = re.compile(r"(dask|ray)://[A-Za-z0-9][\w.-]*:\d{1,5}", re.ASCII)


def _jobs(value: Any) -> int | str:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if (is_number and value != 0) or (isinstance(value, str) and _CLUSTER.fullmatch(value)):
        return value
    raise ValueError("should be a number of processes, -1 for one per core, `dask://host:port` or `ray://host:port`")


def _zero_or_several(value: int) -> int:
    if value != 0 and value < 2:
        raise ValueError("should be 2 or more, or 0 for none")
    return value


#: Form of ``latency.target``. A folder that begins with ``/~/`` is below the home folder.
TARGET = re.compile(
    r"local|file:(?P<file>.*\S)"
    r"|ssh://((?P<user>[A-Za-z_][\w.-]*)@)?(?P<host>[A-Za-z0-9][\w.-]*)(:(?P<port>\d{1,5}))?"
    r"(?P<folder>/(?!~/?$)[^\s?#]*[^\s?#/])/?",
    re.ASCII,
)


def _target(value: str) -> str:
    match = TARGET.fullmatch(value)
    if not match or not 0 < int(match["port"] or 22) < 65536:
        raise ValueError("should be `local`, `ssh://user@host:port/folder` or `file:latency.json`")
    return value


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threshold = Annotated[float | Literal["auto"], PlainValidator(_auto_or_share)]
GroupPattern = Annotated[str | None, AfterValidator(_pattern)]
Workers = Annotated[int | Literal["auto"], PlainValidator(_auto_or_count(0, "processes, 0 for none"))]
Devices = Annotated[int | Literal["auto"], PlainValidator(_auto_or_count(1, "devices of each machine"))]
Jobs = Annotated[int | str, PlainValidator(_jobs)]
FoldsOrNone = Annotated[int, AfterValidator(_zero_or_several)]
Target = Annotated[str, AfterValidator(_target)]
