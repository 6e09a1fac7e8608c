"""Display names of the policies, and their order in tables and figures."""

from collections.abc import Iterable

NAMES = {
    "full": "full network",
    "fixed_frames": "fixed frames",
    "fixed_depth": "fixed depth",
    "frameexit": "FrameExit, gate only",
    "temporal": "temporal only (FrameExit style)",
    "layer": "layer only",
    "tlee_gate": "TLEE, gate only",
    "tlee_thresholds": "TLEE, thresholds",
    "tlee": "TLEE",
    "confidence": "confidence (SDN)",
    "entropy": "entropy (BranchyNet)",
    "patience": "patience (PABEE)",
    "budgeted": "budgeted (MSDNet)",
    "ensemble": "ensemble (ZTW)",
    "random": "random exits",
    "oracle": "oracle",
}


def display_name(policy: str) -> str:
    """Name of a policy in tables and figures; a policy that is not in ``NAMES`` is shown by its key."""
    return NAMES.get(policy, policy)


def in_order(policies: Iterable[str]) -> list[str]:
    """Sort the keys of policies as in ``NAMES``; others follow by name."""
    found = set(policies)
    return [*(policy for policy in NAMES if policy in found), *sorted(found - NAMES.keys())]
