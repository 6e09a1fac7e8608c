"""What tables and figures call the policies, in their order."""

NAMES = {
    "full": "full network",
    "fixed_frames": "fixed frames",
    "fixed_depth": "fixed depth",
    "frameexit": "FrameExit, the gate alone",
    "temporal": "temporal only (FrameExit's way)",
    "layer": "layer only",
    "tlee_gate": "TLEE, the gate alone",
    "tlee": "TLEE",
    "confidence": "confidence (SDN)",
    "entropy": "entropy (BranchyNet)",
    "patience": "patience (PABEE)",
    "budgeted": "budgeted (MSDNet)",
    "ensemble": "ensemble (ZTW)",
    "random": "random exits",
    "oracle": "oracle",
}
