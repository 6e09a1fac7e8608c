"""Backbones defined by torchvision. ``num_branches`` is the number of cuts to use, counted from the deepest."""

from torch import nn

from tlee._torchvision import models
from tlee.backbones.cut import Backbone, Cuts
from tlee.backbones.parts import initialise, pooled

MOBILENET_CUTS = Cuts((4, 8, 12), (24, 64, 96))  #: the cuts of TLEE


def vgg16(num_branches: int) -> Backbone:
    """VGG-16 with batch norm (Simonyan & Zisserman, ICLR 2015), its three linear layers replaced by pooling."""
    features = models.vgg.make_layers(models.vgg.cfgs["D"], batch_norm=True)
    body = initialise(nn.ModuleDict({"features": features}))
    return Backbone(body, pooled(features), Cuts((14, 24, 34), (128, 256, 512)), 512, num_branches, imagenet="vgg16_bn")


def resnet18(num_branches: int) -> Backbone:
    """ResNet-18 (He et al., CVPR 2016), cut after its first three stages."""
    return _resnet("resnet18", (64, 128, 256), 512, num_branches)


def resnet34(num_branches: int) -> Backbone:
    """ResNet-34 (He et al., CVPR 2016), cut after its first three stages."""
    return _resnet("resnet34", (64, 128, 256), 512, num_branches)


def resnet50(num_branches: int) -> Backbone:
    """ResNet-50 (He et al., CVPR 2016; the stride on the 3x3 convolution), cut after its first three stages."""
    return _resnet("resnet50", (256, 512, 1024), 2048, num_branches)


def _resnet(name: str, tap_channels: tuple[int, ...], feature_dim: int, num_branches: int) -> Backbone:
    body = models.get_model(name, weights=None)
    body.fc = nn.Identity()
    stem = (body.conv1, body.bn1, body.relu, body.maxpool)
    layers = pooled([*stem, body.layer1, body.layer2, body.layer3, body.layer4])
    return Backbone(body, layers, Cuts((5, 6, 7), tap_channels), feature_dim, num_branches, imagenet=name)


def mobilenet_v2(num_branches: int) -> Backbone:
    """MobileNetV2 1.0 (Sandler et al., CVPR 2018)."""
    body = mobilenet_v2_body()
    return Backbone(body, pooled(body.features), MOBILENET_CUTS, 1280, num_branches, imagenet="mobilenet_v2")


def mobilenet_v2_body() -> models.MobileNetV2:
    """Return torchvision's MobileNetV2 without its classifier."""
    body = models.mobilenet_v2(weights=None)
    body.classifier = nn.Identity()
    return body


def efficientnet_b3(num_branches: int) -> Backbone:
    """EfficientNet-B3 (Tan & Le, ICML 2019)."""
    body = models.efficientnet_b3(weights=None)
    body.classifier = nn.Identity()
    cuts = Cuts((2, 4, 6), (24, 48, 136))
    return Backbone(body, pooled(body.features), cuts, 1536, num_branches, imagenet="efficientnet_b3")
