"""Models that NNCF 2's own ``create_compressed_model`` has made: their class, layers and forward are NNCF's.

NNCF lets such a model run another function than its own forward, and does around it what other algorithms need, such as
quantizers and a teacher. That function is what :func:`~bootstrapnas_ext._nncf.wrapping.wrap` sets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from nncf.torch.function_hook.hook_storage import HookStorage
from nncf.torch.function_hook.wrapper import ATR_HOOK_STORAGE
from torch import nn

from bootstrapnas_ext._nncf.host import NNCFModule, NNCFNetwork
from bootstrapnas_ext.errors import ModelError

INTERFACE = "_nncf"
"""NNCF's name of the module that holds what it adds to the model."""
_ADDED = {"pre_ops", "post_ops", "nncf_padding_value"}
"""NNCF's names of what it adds to layers."""
_LEFT_OUT = ("_custom_original_unbound_forward", "compression_controller", "_kd_loss_handler")
"""What that module has for training only."""


def is_network(model: Any) -> bool:
    """
    Returns whether a model is one that NNCF 2 has made.

    :param model: Any module.
    """
    return isinstance(model, NNCFNetwork)


def dummy_forward(model: Any) -> Callable[[Any], Any] | None:
    """
    Returns the function that calls the model for the trace, if the user has given one.

    :param model: A model that NNCF has made.
    """
    function: Callable[[Any], Any] | None = model.nncf._user_dummy_forward_fn
    return function


def example_arguments(model: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """
    Returns the arguments that NNCF traces the model with.

    :param model: A model that NNCF has made.
    """
    device = next(model.parameters()).device
    args, kwargs = model.nncf.input_infos.get_forward_inputs(device)
    return args, kwargs


def runs(model: Any) -> Any:
    """
    Returns what NNCF runs as the model's own forward.

    :param model: A model that NNCF has made.
    """
    return model.nncf.get_original_unbound_forward()


def own_forward(model: Any) -> Callable[..., Any]:
    """
    Returns the model's own forward.

    :param model: A model that NNCF has made.
    :raises ModelError: If it was given a forward of its own before NNCF made it, since NNCF lets none take its place.
    """
    if "forward" in vars(model):
        msg = (
            f"The `forward` of the object {type(model).__name__} was replaced, which NNCF 2 lets nobody run otherwise; "
            "give the model a class with that forward, or call `bootstrapnas_ext.create_compressed_model`."
        )
        raise ModelError(msg)
    forward: Callable[..., Any] = model.nncf.get_original_forward()
    return forward


def let_run(model: Any, forward: Callable[..., Any]) -> None:
    """
    Lets NNCF run another function, and gives the model a storage of hooks.

    :param model: A model that NNCF has made.
    :param forward: Called with the model and the arguments.
    """
    model.nncf.set_original_unbound_forward(forward)
    model.add_module(ATR_HOOK_STORAGE, HookStorage())


def let_run_own(model: Any) -> None:
    """
    Takes back what :func:`let_run` did.

    :param model: A model that NNCF has made.
    """
    model.nncf.reset_original_unbound_forward()
    model._modules.pop(ATR_HOOK_STORAGE, None)


def is_compressed(model: Any) -> bool:
    """
    Returns whether other algorithms of NNCF 2 have changed what the model computes.

    :param model: Any model.
    """
    if not is_network(model):
        return False
    layers = (module for module in model.modules() if isinstance(module, NNCFModule))
    around = (module for name, module in model.nncf.named_children() if name not in _LEFT_OUT)
    return any(True for _ in around) or any(len(one.pre_ops) + len(one.post_ops) for one in layers)


def compressed_copy(model: Any, memo: Mapping[int, Any]) -> Any:
    """
    Returns a copy with what other algorithms have added, but without their controllers and teachers.

    :param model: A model that NNCF has made, and that :func:`let_run` has changed.
    :param memo: For objects inside the model, by ``id``, what the copy has in their place.
    """
    interface = model.nncf
    hidden = [getattr(interface, name) for name in _LEFT_OUT]
    nothing = {id(part): nn.Identity() for part in hidden if part is not None}
    small = copy.deepcopy(model, {**memo, **nothing, id(model._modules[ATR_HOOK_STORAGE]): nn.Identity()})
    for name in _LEFT_OUT:
        small.nncf.__dict__.pop(name, None)
        small.nncf._modules.pop(name, None)
        setattr(small.nncf, name, None)
    let_run_own(small)
    return small


def plain_copy(model: Any, memo: Mapping[int, Any]) -> Any:
    """
    Returns a copy that is as the model was before NNCF, without what algorithms have added.

    :param model: A model that NNCF has made.
    :param memo: For objects inside the model, by ``id``, what the copy has in their place.
    """
    interface = model._modules[INTERFACE]
    left_out = [name for name in (INTERFACE, ATR_HOOK_STORAGE) if name in model._modules]
    plain = copy.deepcopy(model, {**memo, **{id(model._modules[name]): nn.Identity() for name in left_out}})
    for name in left_out:
        del plain._modules[name]
    plain.__class__ = interface._original_class
    for module in plain.modules():
        if isinstance(module, NNCFModule):
            for name in _ADDED & {*module._modules, *module._buffers}:
                delattr(module, name)
            module.__class__ = next(kind for kind in type(module).__mro__ if not issubclass(kind, NNCFModule))
    return plain
