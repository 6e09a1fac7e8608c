"""What tables and figures call the policies, in their order."""

NAMES = {
    "full": "full network",
    "frameexit": "FrameExit, the gate alone",
    "temporal": "temporal only (FrameExit's way)",
    "layer": "layer only",
    "tlee_gate": "TLEE, the gate alone",
    "tlee": "TLEE",
    "random": "random exits",
    "oracle": "oracle",
}
