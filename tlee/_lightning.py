"""Import Lightning Fabric without torchmetrics, of which it only looks up the version.

The version tells Fabric whether its detector of spikes of the loss can be had, which nothing here uses. With what
torchmetrics imports in its turn, scipy.signal and matplotlib among others, that is a third of the time of the import.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

_hidden = "torchmetrics" not in sys.modules
if _hidden:
    sys.modules["torchmetrics"] = None  # type: ignore[assignment]  # its import fails

if TYPE_CHECKING:
    from lightning_fabric import Fabric, seed_everything
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy
else:
    Fabric = import_module("lightning_fabric").Fabric
    seed_everything = import_module("lightning_fabric").seed_everything
    LightningEnvironment = import_module("lightning_fabric.plugins.environments").LightningEnvironment
    TorchElasticEnvironment = import_module("lightning_fabric.plugins.environments").TorchElasticEnvironment
    DDPStrategy = import_module("lightning_fabric.strategies").DDPStrategy

if _hidden:
    del sys.modules["torchmetrics"]
