"""Torchvision's ResNets as both papers save them: without names, as a sequence of their children."""

from tlee.checkpoints.layout import State

CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


def resnet_prefixes(state: State, stem: str) -> dict[str, str]:
    """How the kit's names of a ResNet begin, to how those below ``stem`` do: with a child's number, or its name."""
    is_named = f"{stem}conv1.weight" in state
    return {f"backbone.body.{name}.": f"{stem}{name if is_named else number}." for name, number in CHILDREN.items()}


def which_resnet(state: State, stem: str) -> str:
    """Which of the kit's ResNets lies below ``stem``, by the blocks of its first stage."""
    first_stage = resnet_prefixes(state, stem)["backbone.body.layer1."]
    if f"{first_stage}0.conv3.weight" in state:
        return "resnet50"
    return "resnet34" if f"{first_stage}2.conv1.weight" in state else "resnet18"
