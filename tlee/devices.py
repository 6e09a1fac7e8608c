"""What computes: the device, and the processes that load its input."""

import joblib
import torch

from tlee.errors import UserError
from tlee.params import ComputeParams

MOST_WORKERS = 16  #: for one device: at some 1,500 frames/s a core, more than the fastest GPUs train on


def device_of(compute: ComputeParams) -> torch.device:
    """Return the device that computes. Raises ``UserError`` if there is none of the kind ``compute.accelerator``."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    wanted = compute.accelerator
    if wanted != "auto" and not available[wanted]:
        raise UserError(f"compute.accelerator is {wanted}, but PyTorch finds no such device: set it to auto")
    return torch.device(next(kind for kind in available if available[kind]) if wanted == "auto" else wanted)


def devices_of(compute: ComputeParams) -> int:
    """Return the number of devices of this machine that train together: with ``auto`` all GPUs, of other kinds one.

    Several devices of kind ``cpu`` are several processes. Raises ``UserError`` if there are fewer GPUs.
    """
    kind = device_of(compute).type
    found = torch.cuda.device_count() if kind == "cuda" else 1
    if compute.devices == "auto":
        return found
    if kind != "cpu" and compute.devices > found:
        raise UserError(f"compute.devices is {compute.devices}, but PyTorch finds {found} ({kind}): set it to auto")
    return compute.devices


def workers_of(compute: ComputeParams) -> int:
    """Return the number of processes that load clips for a device: with ``auto`` the cores but one, evenly shared.

    Without a GPU it is none, since training itself takes all cores.
    """
    if compute.workers != "auto":
        return compute.workers
    if device_of(compute).type == "cpu":
        return 0
    return min(max((joblib.cpu_count() - 1) // devices_of(compute), 1), MOST_WORKERS)
