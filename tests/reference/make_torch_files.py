"""Writes the small files of torch that tests/models/test_weight_files.py reads.

    python tests/reference/make_torch_files.py

needs torch, which the tests do not. Every number says where it stands: see `tensors`.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

FOLDER = Path(__file__).parent
DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int16", "int32", "int64")


def tensors() -> OrderedDict:
    """Tensors of each type that count from 0, and views of one storage."""
    counting = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    found = OrderedDict(
        counting=counting,
        transposed=counting.T,
        sliced=counting[1:, ::2],
        expanded=counting[:1].expand(3, 6),
        parameter=nn.Parameter(counting[2]),
        scalar=torch.tensor(7.0),
        empty=torch.zeros(0, 3),
        bool=torch.tensor([True, False]),
    )
    for name in DTYPES:
        found[name] = torch.arange(6, dtype=getattr(torch, name)).reshape(2, 3)
    return found


def module() -> OrderedDict:
    """A state dict as torch makes it, with its hidden `_metadata`."""
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = net.state_dict()
    for name, value in state.items():
        state[name] = torch.arange(value.numel()).reshape(value.shape).to(value.dtype)
    return state


def main() -> None:
    wrapped = {
        "epoch": 3,
        "dtype": torch.float32,
        "state_dict": {f"module.{name}": value for name, value in tensors().items()},
    }
    files = {
        "torch_tensors": tensors(),
        "torch_wrapped": wrapped,
        "torch_module": {"model": module()},
    }
    for name, content in files.items():
        torch.save(content, FOLDER / f"{name}.pth")
        legacy = FOLDER / f"{name}_legacy.pth"
        torch.save(content, legacy, _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
