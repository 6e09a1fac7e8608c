"""Lightning Fabric on one device, or on the devices that ``launch`` started ranks for."""

import os
from typing import Any

from tlee._lightning import DDPStrategy, Fabric, LightningEnvironment, TorchElasticEnvironment


def new_fabric(accelerator: str, precision: Any = "32-true") -> Fabric:
    """Return the Fabric of this process, launched: with DDP on a rank, else of a single device.

    The environment is not left to Fabric, which would take a process within a SLURM job for one that SLURM launched.
    """
    if not TorchElasticEnvironment.detect():
        return Fabric(accelerator=accelerator, devices=1, precision=precision, plugins=LightningEnvironment())
    local, all_ranks = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    # Not all parameters are trained in every stage, and batch norm has the same statistics on all ranks.
    strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=all_ranks // local,
        strategy=strategy,
        precision=precision,
        plugins=TorchElasticEnvironment(),
    )
    fabric.launch()
    return fabric
