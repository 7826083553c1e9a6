"""Copies of models, with and without what wrapping added."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from nncf.torch.function_hook.wrapper import ATR_HOOK_STORAGE, get_hook_storage
from torch import nn

from bootstrapnas_ext._nncf import network
from bootstrapnas_ext._nncf.wrapping import own_forward

TModel = TypeVar("TModel", bound=nn.Module)


def copy_of(model: TModel) -> TModel:
    """
    Returns a deep copy, also of a model with tensors that were computed with gradients in its attributes.

    Of a model that NNCF 2 has made, it is a copy of the model as it was before.

    :param model: The model.
    """
    tensors = _computed_tensors(model)
    if network.is_network(model):
        plain: TModel = network.plain_copy(model, tensors)
        return plain
    return copy.deepcopy(model, tensors)


def _computed_tensors(model: nn.Module) -> dict[int, Any]:
    """
    Returns by ``id`` copies of the tensors that ``copy.deepcopy`` refuses, since they were computed with gradients.

    Code that computes a weight before each forward leaves them in attributes: pruning, the older ``weight_norm``.
    """
    attributes = [value for module in model.modules() for value in vars(module).values()]
    tensors = [value for value in attributes if isinstance(value, torch.Tensor) and not value.is_leaf]
    return {id(tensor): tensor.detach().clone() for tensor in tensors}


def bare_copy(model: TModel, replaced: Mapping[int, Any]) -> TModel:
    """
    Returns a copy of a model without the wrapping.

    A model that NNCF 2 has made becomes a plain one again, unless other algorithms have changed what it computes.

    :param model: A wrapped model.
    :param replaced: For objects inside the model, by ``id``, what the copy has in their place.
    """
    small = _bare_network(model, replaced) if network.is_network(model) else _bare_model(model, replaced)
    package = __name__.partition(".")[0]
    for module in small.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__module__", "").partition(".")[0] == package:  # such as those of distillation
                del module._forward_hooks[key]
                module._forward_hooks_with_kwargs.pop(key, None)
    return small


def _bare_network(model: TModel, replaced: Mapping[int, Any]) -> TModel:
    replicate, nothing = vars(model)["_replicate_for_data_parallel"], object()
    memo = {**_computed_tensors(model), **replaced, id(replicate): nothing}
    copied = network.compressed_copy if network.is_compressed(model) else network.plain_copy
    small: TModel = copied(model, memo)
    del small._replicate_for_data_parallel
    return small


def _bare_model(model: TModel, replaced: Mapping[int, Any]) -> TModel:
    nothing = object()
    hidden = (model.forward, model._replicate_for_data_parallel, get_hook_storage(model))
    # What deepcopy finds in its memo, it takes for the copy, so that what is replaced is never copied.
    memo = {**_computed_tensors(model), **replaced, **{id(part): nothing for part in hidden}}
    small = copy.deepcopy(model, memo)
    del small.forward, small._replicate_for_data_parallel, small._modules[ATR_HOOK_STORAGE]
    original = own_forward(model)
    del model.__dict__["forward"]
    if model.forward != original:
        small.forward = copy.deepcopy(original, memo)
    model.forward = hidden[0]
    return small
