"""Hooks on a model in NNCF's storage, and what runs the model in the place of NNCF's own executor."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from nncf.torch.function_hook.wrapper import (
    ATR_HOOK_STORAGE,
    ForwardWithHooks,
    get_hook_storage,
    is_wrapped,
    register_pre_function_hook,
    wrap_model,
)
from torch import nn

from bootstrapnas_ext.errors import ModelError


class ElasticForward(ForwardWithHooks):
    """
    The forward of a wrapped model: as NNCF's, but it lets a function run the model.

    NNCF's own executor wraps every module and function on each forward, which costs milliseconds; the function does
    only what the active subnet needs. NNCF's functions still find the hooks in their storage.

    :param model: A model without wrapped forward.
    :param runner: Called as ``runner(forward, *args, **kwargs)``.
    """

    runner: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.runner(original_forward(self.model), *args, **kwargs)


def wrap(model: nn.Module, runner: Callable[..., Any]) -> None:
    """
    Wraps a model with NNCF's hook storage and lets a function run it.

    :param model: The model; changed in place.
    :param runner: Called instead of the model's forward as ``runner(forward, *args, **kwargs)``.
    :raises ModelError: If the model is wrapped already.
    """
    if is_wrapped(model):
        msg = "The model has NNCF hooks already; make the super-network from the plain model."
        raise ModelError(msg)
    wrap_model(model)
    original = own_forward(model)
    del model.forward
    forward = ElasticForward(model, original)
    forward.runner = runner
    model.forward = forward
    vars(model)["_replicate_for_data_parallel"] = _refuse_replicas


def _refuse_replicas(*_: Any) -> nn.Module:
    msg = (
        "nn.DataParallel runs copies of a super-network, which do not know its active subnet; run it in a process for "
        "each device (DistributedDataParallel), or extract the subnet first."
    )
    raise ModelError(msg)


def unwrap(model: nn.Module) -> None:
    """
    Removes what :func:`wrap` added.

    :param model: A wrapped model; changed in place.
    """
    original = own_forward(model)
    del model.forward, model._replicate_for_data_parallel
    if model.forward != original:
        model.forward = original
    delattr(model, ATR_HOOK_STORAGE)


def add_pre_hook(model: nn.Module, op_name: str, port: int, hook: nn.Module) -> None:
    """
    Registers a pre-op hook in NNCF's storage.

    :param model: A wrapped model.
    :param op_name: NNCF's name of the operation.
    :param port: NNCF's port number of the argument.
    :param hook: The hook.
    """
    register_pre_function_hook(model, op_name, port, hook)


def add_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """
    Lets a module that is no hook travel with NNCF's storage: with the model's state, its copies and its device.

    :param model: A wrapped model.
    :param name: What the module is called there.
    :param module: The module.
    """
    get_hook_storage(model).add_module(name, module)


def own_forward(model: nn.Module) -> Callable[..., Any]:
    """
    Returns the forward that a model had before it was wrapped; one that runs all children runs the storage, too.

    :param model: A wrapped model.
    """
    wrapped: Any = model.forward
    forward: Callable[..., Any] = wrapped.orig_forward
    return forward


def original_forward(model: nn.Module) -> Callable[..., Any]:
    """
    Returns the forward that a model had before it was wrapped.

    While it runs, the storage of hooks is no child of the model: a model that runs all its children, as
    ``nn.Sequential`` does, would run the storage too.

    :param model: A wrapped model.
    """
    own, modules = own_forward(model), model._modules

    @wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        storage = modules.pop(ATR_HOOK_STORAGE, None)
        try:
            return own(*args, **kwargs)
        finally:
            if storage is not None:
                modules[ATR_HOOK_STORAGE] = storage

    return forward
