"""torchvision's ResNets in both papers' checkpoints: saved as a sequence of their children, without names."""

from tlee.checkpoints.layout import State

#: Positions of the children of a ResNet by name.
CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


def resnet_prefixes(state: State, stem: str) -> dict[str, str]:
    """Return prefixes of tensor names of a ResNet: the kit's to those below ``stem``, by child's number or name."""
    is_named = f"{stem}conv1.weight" in state
    return {f"backbone.body.{name}.": f"{stem}{name if is_named else number}." for name, number in CHILDREN.items()}


def resnet_name(state: State, stem: str) -> str:
    """Identify the ResNet below ``stem`` by the blocks of its first stage; return the kit's name of it."""
    first_stage = resnet_prefixes(state, stem)["backbone.body.layer1."]
    if f"{first_stage}0.conv3.weight" in state:
        return "resnet50"
    return "resnet34" if f"{first_stage}2.conv1.weight" in state else "resnet18"
