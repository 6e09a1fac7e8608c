"""Display names of the policies, in the order of tables and figures."""

NAMES = {
    "full": "full network",
    "fixed_frames": "fixed frames",
    "fixed_depth": "fixed depth",
    "frameexit": "FrameExit, gate only",
    "temporal": "temporal only (FrameExit style)",
    "layer": "layer only",
    "tlee_gate": "TLEE, gate only",
    "tlee": "TLEE",
    "confidence": "confidence (SDN)",
    "entropy": "entropy (BranchyNet)",
    "patience": "patience (PABEE)",
    "budgeted": "budgeted (MSDNet)",
    "ensemble": "ensemble (ZTW)",
    "random": "random exits",
    "oracle": "oracle",
}
