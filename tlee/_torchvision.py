"""Import torchvision alongside any build of torch.

A torchvision built for CUDA cannot load its compiled ops alongside a CPU build of torch, and its import fails with
"operator torchvision::nms does not exist". The two detection ops whose schemas it expects are never called here, so
defining the schemas is enough: models and transforms work. On matching builds nothing is defined.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

try:
    import_module("torchvision")
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # the half-imported package
    _library = torch.library.Library("torchvision", "DEF")  # the ops live as long as this does
    for _schema in _SCHEMAS:
        _library.define(_schema)

if TYPE_CHECKING:
    from torchvision import models
    from torchvision.transforms import v2 as transforms
else:
    models = import_module("torchvision.models")
    transforms = import_module("torchvision.transforms.v2")
