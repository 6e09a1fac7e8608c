"""Policies as JSON files: those chosen by stage ``evaluate``, and the one certified by stage ``guarantee``."""

from pathlib import Path
from typing import Any

from tlee.checksums import save_sealed
from tlee.errors import UserError
from tlee.paths import GUARANTEED_POLICY, POLICY
from tlee.policies.given import FixedExits, GivenExits, RandomExits
from tlee.policies.optimal_stopping import OptimalStopping
from tlee.policies.policy import Policy
from tlee.policies.stops import StopAbove
from tlee.policies.thresholds import Thresholds
from tlee.records import load_json

KINDS = {kind.__name__: kind for kind in (Thresholds, OptimalStopping, StopAbove, FixedExits, RandomExits)}
STAGES = {POLICY: "evaluate", GUARANTEED_POLICY: "guarantee"}  #: stages that write these files


def save_policies(policies: dict[str, Policy | GivenExits], path: Path = POLICY) -> None:
    """Write policies by name, each with its kind."""
    save_sealed(path, {name: {"kind": type(policy).__name__} | vars(policy) for name, policy in policies.items()})


def read_policy(name: str, path: Path = POLICY) -> Policy | GivenExits:
    """Read one policy of a file in ``STAGES``; ``UserError`` if the file is missing or has none of this name."""
    policies = load_json(path, STAGES[path])
    if name not in policies:
        known = ", ".join(sorted(policies))
        raise UserError(f"{path} holds no policy `{name}`, it has {known}: run `dvc repro {STAGES[path]}`")
    try:
        values = dict(policies[name])
        return KINDS[values.pop("kind")](**{key: _tupled(value) for key, value in values.items()})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path} is of an older kit or damaged: run `dvc repro {STAGES[path]}`") from None


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
