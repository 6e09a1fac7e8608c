"""What computes: the device, and the processes that load its input."""

import joblib
import torch

from tlee.errors import UserError
from tlee.params import ComputeParams

MOST_WORKERS = 16  #: for one device: at about 700 frames/s a core, more than the fastest GPUs train on


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


def workers_of(compute: ComputeParams) -> int:
    """Return the number of processes that load clips: with ``auto`` one for each core but one, none without a GPU.

    Without a GPU, training itself takes all cores.
    """
    if compute.workers != "auto":
        return compute.workers
    return 0 if device_of(compute).type == "cpu" else min(max(joblib.cpu_count() - 1, 1), MOST_WORKERS)
