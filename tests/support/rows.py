"""Rows of tensors as examples of training."""

import torch

from tlee.loading import Examples, Key


class TensorRows(Examples):
    """Rows of tensors of the same length, the same in every epoch."""

    def __init__(self, *tensors: torch.Tensor):
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, ...]:
        return tuple(tensor[key.row] for tensor in self.tensors)
