"""What cannot become a super-network is refused with a reason before it runs."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bootstrapnas_ext.errors import ModelError


def check_model(model: Any) -> None:
    """
    Looks whether a model's operations can be seen, and whether all of its weights are there.

    Frozen parameters, any type of numbers and any mode are fine.

    :param model: What the user gave.
    :raises ModelError: If it is no module, a wrapper around one, or compiled, or if a weight has no values yet.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"`model` must be an nn.Module, but got {type(model).__name__}.")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        name = type(model).__name__
        msg = f"The model is wrapped in {name}; make the super-network from its `.module`."
        raise ModelError(msg)
    if isinstance(model, torch.jit.ScriptModule):
        msg = "The model is compiled by TorchScript, which hides its operations; give the module that it was made from."
        raise ModelError(msg)
    for name, module in model.named_modules():
        # An OptimizedModule holds the original one under this name; `module.compile()` sets the other attribute.
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None:
            msg = (
                f"{_place(name)} is compiled by torch.compile, which hides its operations; make the super-network from "
                "the model before it is compiled, and compile the subnets that are extracted."
            )
            raise ModelError(msg)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            msg = f"{name!r} of the model has no shape yet; run the model once, so that its lazy modules get theirs."
            raise ModelError(msg)
        if tensor.is_meta:
            msg = (
                f"{name!r} of the model is on the `meta` device and has no values; load weights with "
                "`load_state_dict(state, assign=True)`, or make room for them with `to_empty(device='cpu')`."
            )
            raise ModelError(msg)


def _place(name: str) -> str:
    return f"The part {name!r} of the model" if name else "The model"
