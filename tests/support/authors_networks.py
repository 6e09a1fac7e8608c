"""Random checkpoints of the authors' networks, and the computation of these networks from the raw tensors.

Independent of the kit's networks, so that tests compare two implementations.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from tlee._torchvision import models

State = dict[str, torch.Tensor]

CLASSES = 7
FRAMES = 10
WINDOWS = (14 * 14, 3 * 3, 3 * 3)  #: cells per map of the authors' branches on MobileNetV2 at 224 pixels
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))


# --- random checkpoints --------------------------------------------------------------------------


def linear(name: str, outputs: int, inputs: int, *ones: int) -> State:
    """Return a random linear layer, or with ``ones`` a 1x1 convolution."""
    weight = torch.randn(outputs, inputs, *ones) / inputs**0.5
    return {f"{name}.weight": weight, f"{name}.bias": torch.randn(outputs) * 0.1}


def norm(name: str, size: int) -> State:
    """Return a random batch norm, with statistics and affine parameters but without its counter."""
    return {
        f"{name}.weight": torch.rand(size) + 0.5,
        f"{name}.bias": torch.randn(size) * 0.3,
        f"{name}.running_mean": torch.randn(size) * 0.3,
        f"{name}.running_var": torch.rand(size) + 0.5,
    }


def body(network: nn.Module, prefix: str, clips: torch.Tensor) -> State:
    """Return the state of a network whose batch norms have the statistics of ``clips``: signals do not vanish."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        network.train()(clips.flatten(0, 1))
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


def frameexit_checkpoint(clips: torch.Tensor, frames: int = FRAMES, width: int = 96) -> State:
    torch.manual_seed(1)
    state = body(nn.Sequential(*list(models.resnet50(weights=None).children())[:8]), "backbone.", clips)
    state |= linear("mlp.layers.0", width, 2048) | norm("mlp.layers.1", width)
    for t in range(frames):
        state |= linear(f"classifiers.{t}", CLASSES, width)
    for index in range(frames - 1):
        state |= frameexit_gate(index, width)
    return state


def frameexit_gate(index: int, width: int) -> State:
    name = f"exit_selector.{index}"
    return (
        linear(f"{name}.conv1", 128, width, 1, 1)
        | norm(f"{name}.bn1", 128)
        | linear(f"{name}.conv2", 64, 128, 1, 1)
        | norm(f"{name}.bn2", 64)
        | linear(f"{name}.linear", 1, 128)
    )


def tlee_checkpoint(
    clips: torch.Tensor, gate: str | None, mlp: int | None, cells: tuple[int, ...] = (16, 16, 16)
) -> State:
    """Return a checkpoint on MobileNetV2; ``cells`` of the pooled map of each branch: of a grid, or ``WINDOWS``."""
    torch.manual_seed(2)
    state = body(models.mobilenet_v2(weights=None).features, "backbone.baseModel.", clips)
    for index, (channels, area) in enumerate(zip((24, 64, 96), cells, strict=True)):
        name = f"backbone.branches.{index}"
        state |= linear(f"{name}.crm.conv0", channels // 2, channels, 1, 1)
        state |= linear(f"{name}.crm.conv1", channels // 4, channels // 2, 1, 1)
        state |= linear(f"{name}.fc1", 1280, channels // 4 * area) | {f"{name}.alpha": torch.rand(1)}
    width = mlp or 1280
    if mlp:
        state |= linear("mlp.layers.0", mlp, 1280) | norm("mlp.layers.1", mlp)
    state |= linear("classifiers.0", CLASSES, width)
    if gate == "mlp":
        state |= linear("exit_selector.0.fc1", 32, width) | linear("exit_selector.0.fc2", 1, 64)
    if gate == "frameexit":
        state |= frameexit_gate(0, width)
    return state


# --- computation ---------------------------------------------------------------------------------


def apply_linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[f"{name}.weight"].flatten(1), state[f"{name}.bias"])


def apply_norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    tensors = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *tensors)


def conv_norm(state: State, conv: str, norm_name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    weight = state[f"{conv}.weight"]
    groups = x.shape[1] // weight.shape[1]
    return apply_norm(state, norm_name, F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups))


def normalise(clips: torch.Tensor, constants: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in constants)
    return (clips.flatten(0, 1) - mean) / std


def apply_mlp(state: State, x: torch.Tensor) -> torch.Tensor:
    if "mlp.layers.0.weight" not in state:
        return x
    return apply_norm(state, "mlp.layers.1", apply_linear(state, "mlp.layers.0", x)).relu()


def frameexit_features(state: State, clips: torch.Tensor) -> torch.Tensor:
    """Compute ``[N, T, 1, D]``: ResNet-50, global average pooling, MLP."""
    x = conv_norm(state, "backbone.0", "backbone.1", normalise(clips, IMAGENET), stride=2).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, blocks in zip((4, 5, 6, 7), (3, 4, 6, 3), strict=True):
        for index in range(blocks):
            name, stride = f"backbone.{stage}.{index}", 2 if index == 0 and stage > 4 else 1
            y = conv_norm(state, f"{name}.conv1", f"{name}.bn1", x).relu()
            y = conv_norm(state, f"{name}.conv2", f"{name}.bn2", y, stride).relu()
            y = conv_norm(state, f"{name}.conv3", f"{name}.bn3", y)
            if index == 0:
                x = conv_norm(state, f"{name}.downsample.0", f"{name}.downsample.1", x, stride)
            x = (x + y).relu()
    return apply_mlp(state, x.mean((2, 3))).unflatten(0, clips.shape[:2]).unsqueeze(2)


def tlee_features(state: State, clips: torch.Tensor) -> torch.Tensor:
    """Compute ``[N, T, 4, D]``: MobileNetV2, branches after 4, 8 and 12 layers, global average pooling, MLP."""
    x, outputs = normalise(clips, KINETICS), []
    for layer in range(19):
        x = mobilenet_layer(state, layer, x)
        if layer in (3, 7, 11) and f"backbone.branches.{len(outputs)}.alpha" in state:
            outputs.append(apply_branch(state, f"backbone.branches.{len(outputs)}", x))
    outputs.append(x.mean((2, 3)))
    return torch.stack([apply_mlp(state, output) for output in outputs], 1).unflatten(0, clips.shape[:2])


def mobilenet_layer(state: State, layer: int, x: torch.Tensor) -> torch.Tensor:
    name = f"backbone.baseModel.{layer}"
    if layer in (0, 18):
        return conv_norm(state, f"{name}.0", f"{name}.1", x, stride=2 if layer == 0 else 1).clamp(0, 6)
    y, last = x, 1 if layer == 1 else 2
    for index in range(last):
        stride = 2 if index == last - 1 and layer in (2, 4, 7, 14) else 1
        y = conv_norm(state, f"{name}.conv.{index}.0", f"{name}.conv.{index}.1", y, stride).clamp(0, 6)
    y = conv_norm(state, f"{name}.conv.{last}", f"{name}.conv.{last + 1}", y)
    return x + y if x.shape == y.shape else y


def apply_branch(state: State, name: str, tap: torch.Tensor) -> torch.Tensor:
    alpha = state[f"{name}.alpha"]
    channels = state[f"{name}.crm.conv1.weight"].shape[0]
    if state[f"{name}.fc1.weight"].shape[1] == channels * 16:
        x = alpha * F.adaptive_max_pool2d(tap, 4) + (1 - alpha) * F.adaptive_avg_pool2d(tap, 4)
    else:
        x = alpha * F.max_pool2d(tap, 4) + (1 - alpha) * F.avg_pool2d(tap, 4)
    for index in range(2):
        x = F.conv2d(x, state[f"{name}.crm.conv{index}.weight"], state[f"{name}.crm.conv{index}.bias"]).relu()
    return apply_linear(state, f"{name}.fc1", x.flatten(1))


def gate_score(state: State, index: int, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
    """Compute logits ``[n]`` from two features ``[n, D]``. TLEE's own gate is two linear layers without activation."""
    name = f"exit_selector.{index}"
    if f"{name}.fc1.weight" in state:
        both = torch.cat([apply_linear(state, f"{name}.fc1", z) for z in (current, past)], 1)
        return apply_linear(state, f"{name}.fc2", both).squeeze(1)
    shared = []
    for z in (current, past):
        z = apply_norm(state, f"{name}.bn1", apply_linear(state, f"{name}.conv1", z)).relu()
        shared.append(apply_norm(state, f"{name}.bn2", apply_linear(state, f"{name}.conv2", z)).relu())
    return apply_linear(state, f"{name}.linear", torch.cat(shared, 1)).squeeze(1)


def balance_gate(state: State, index: int, current: torch.Tensor, past: torch.Tensor) -> None:
    """Shift the bias of a gate so that about half of the pairs score below one half, and none close to it."""
    last = "fc2" if f"exit_selector.{index}.fc2.bias" in state else "linear"
    state[f"exit_selector.{index}.{last}.bias"] -= between(gate_score(state, index, current, past), 0.5)


def between(values: torch.Tensor, share: float) -> float:
    """Return a number above about ``share`` of ``values``, halfway between two of them."""
    ordered = values.flatten().sort().values
    position = min(max(round(share * len(ordered)), 1), len(ordered) - 1)
    return ordered[position - 1 : position + 1].mean().item()


def frameexit_decisions(state: State, features: torch.Tensor, first: float) -> tuple[list[int], torch.Tensor]:
    """Return the number of frames used of each video, and its logits; the gate stops below one half."""
    used, logits = [], []
    for video in features[:, :, 0]:
        past = None
        for t, feature in enumerate(video):
            z = feature if past is None else torch.maximum(past, feature)
            step_logits = apply_linear(state, f"classifiers.{t}", z)
            if t == 0:
                stop = step_logits.softmax(0).max() > first
            elif t < len(video) - 1:
                stop = gate_score(state, t - 1, z[None], past[None]).sigmoid() < 0.5
            else:
                stop = True
            past = z
            if stop:
                break
        used.append(t + 1)
        logits.append(step_logits)
    return used, torch.stack(logits)


def tlee_decisions(
    state: State,
    features: torch.Tensor,
    first: float,
    layer: float,
    reuse: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.maximum,
) -> tuple[list[list[int]], torch.Tensor]:
    """Return the exit depths of each video (-1 for unused frames) and its logits, by TLEE's published test loop.

    Every exit is evaluated. At the first frame its ``z`` is its own feature, later ``reuse`` of the ``z`` before and
    its feature; the gate compares these two ``z`` and stops above one half; at the last frame the first exit stops.
    """
    paths, logits = [], []
    for video in features:
        z, path, stop = None, [], False
        for t, exits in enumerate(video):
            path.append(-1)
            for feature in exits:
                path[-1] += 1
                before, z = z, feature if t == 0 else reuse(z, feature)
                step_logits = apply_linear(state, "classifiers.0", z)
                confidence = step_logits.softmax(0).max()
                if t == 0:
                    stop = confidence > first
                elif t == len(video) - 1:
                    stop = True
                else:
                    stop = gate_score(state, 0, z[None], before[None]).sigmoid() > 0.5
                if stop or confidence > layer:
                    break
            if stop:
                break
        paths.append(path + [-1] * (len(video) - len(path)))
        logits.append(step_logits)
    return paths, torch.stack(logits)
