"""``results/policy.json``: the policies that ``evaluate`` has chosen."""

from dataclasses import asdict
from typing import Any

from tlee.errors import UserError
from tlee.paths import POLICY
from tlee.policies.given import FixedExits, GivenExits, RandomExits
from tlee.policies.look import Policy
from tlee.policies.stops import StopAbove
from tlee.policies.thresholds import Thresholds
from tlee.records import load_json, save_json

KINDS = {kind.__name__: kind for kind in (Thresholds, StopAbove, FixedExits, RandomExits)}


def save_policies(policies: dict[str, Policy | GivenExits]) -> None:
    """Write policies by name, each with its kind."""
    save_json(POLICY, {name: {"kind": type(policy).__name__} | asdict(policy) for name, policy in policies.items()})


def read_policy(name: str) -> Policy | GivenExits:
    """One of them; ``UserError`` if the file is missing or has none of this name."""
    policies = load_json(POLICY, "evaluate")
    if name not in policies:
        known = ", ".join(sorted(policies))
        raise UserError(f"{POLICY} holds no policy `{name}`, it has {known}: run `dvc repro evaluate`")
    try:
        values = dict(policies[name])
        return KINDS[values.pop("kind")](**{key: _tupled(value) for key, value in values.items()})
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{POLICY} is of an older kit or damaged: run `dvc repro evaluate`") from None


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
