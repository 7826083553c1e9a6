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

from bootstrapnas_ext._nncf import network
from bootstrapnas_ext._nncf.host import hand_over
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
        return self.runner(_without_storage(self.model, self.orig_forward), *args, **kwargs)


class _NetworkForward(ElasticForward):
    """What NNCF 2 runs in the place of a model's own forward, with the model as its first argument."""

    def __call__(self, _: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with hand_over():
            return super().__call__(*args, **kwargs)


def wrap(model: nn.Module, runner: Callable[..., Any]) -> None:
    """
    Wraps a model with NNCF's hook storage and lets a function run it.

    :param model: The model; changed in place.
    :param runner: Called instead of the model's forward as ``runner(forward, *args, **kwargs)``.
    :raises ModelError: If the model is wrapped already.
    """
    if is_wrapped(model) or is_elastic(model):
        msg = "The model has NNCF hooks already; make the super-network from the plain model."
        raise ModelError(msg)
    if network.is_network(model):
        forward: ElasticForward = _NetworkForward(model, network.own_forward(model))
        network.let_run(model, forward)
    else:
        wrap_model(model)
        original = own_forward(model)
        del model.forward
        forward = ElasticForward(model, original)
        model.forward = forward
    forward.runner = runner
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
    del model._replicate_for_data_parallel
    if network.is_network(model):
        network.let_run_own(model)
        return
    original = own_forward(model)
    del model.forward
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


def elastic_forward(model: nn.Module) -> Any:
    """
    Returns what runs a wrapped model; what runs the model at all, if it is not wrapped.

    :param model: Any model.
    """
    return network.runs(model) if network.is_network(model) else model.forward


def is_elastic(model: nn.Module) -> bool:
    """
    Returns whether :func:`wrap` has wrapped a model.

    :param model: Any model.
    """
    return isinstance(elastic_forward(model), ElasticForward)


def own_forward(model: nn.Module) -> Callable[..., Any]:
    """
    Returns the forward that a model had before it was wrapped; one that runs all children runs the storage, too.

    :param model: A wrapped model.
    """
    forward: Callable[..., Any] = elastic_forward(model).orig_forward
    return forward


def original_forward(model: nn.Module) -> Callable[..., Any]:
    """
    Returns the forward that a model had before it was wrapped, with what other algorithms of NNCF 2 do around it.

    While it runs, the storage of hooks is no child of the model: a model that runs all its children, as
    ``nn.Sequential`` does, would run the storage too.

    :param model: A wrapped model.
    """
    if not network.is_network(model):
        return _without_storage(model, own_forward(model))
    elastic = elastic_forward(model)

    @wraps(elastic.orig_forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        runner, elastic.runner = elastic.runner, _run_as_it_is
        try:
            return model.forward(*args, **kwargs)
        finally:
            elastic.runner = runner

    return forward


def _run_as_it_is(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return forward(*args, **kwargs)


def _without_storage(model: nn.Module, own: Callable[..., Any]) -> Callable[..., Any]:
    modules = model._modules

    @wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        storage = modules.pop(ATR_HOOK_STORAGE, None)
        try:
            return own(*args, **kwargs)
        finally:
            if storage is not None:
                modules[ATR_HOOK_STORAGE] = storage

    return forward
