"""What several backbones are made of."""

from torch import nn


def pooled(layers: nn.Module) -> nn.Sequential:
    """``layers`` (iterable), then global average pooling: ``[N, C, H, W]`` at the end becomes ``[N, C]``."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def initialise(network: nn.Module) -> nn.Module:
    """Random start of convolutions that precede a ReLU (He et al., ICCV 2015, equation 14); their biases are 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
