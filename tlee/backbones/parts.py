"""Building blocks shared by several backbones."""

from collections.abc import Iterable

from torch import nn


def pooled(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Append global average pooling to ``layers``: their output ``[N, C, H, W]`` becomes ``[N, C]``."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def initialise(network: nn.Module) -> nn.Module:
    """Initialise convolutions that precede a ReLU (He et al., ICCV 2015, equation 14), with zero biases."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
