"""Cuts a subnet out of the super-network: a plain module with its own, really smaller weights."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from bootstrapnas_ext import _nncf
from bootstrapnas_ext._nncf import HookMode
from bootstrapnas_ext.errors import ExportError, first_line
from bootstrapnas_ext.execution import check_counts
from bootstrapnas_ext.graph import ModelGraph, Place
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.modes import evaluation_mode
from bootstrapnas_ext.shadows import shadowed
from bootstrapnas_ext.skipping import Skip, pass_through
from bootstrapnas_ext.supernet import Supernet


def extract(
    supernet: Supernet, subnet: Mapping[str, int], prepare: Callable[[nn.Module], object] | None = None
) -> nn.Module:
    """
    Returns a subnet as a plain module: no hooks, no link to the super-network.

    Where everything that the subnet changes is an attribute of a module, the result is a copy of the model with smaller
    attributes, in the mode (training or eval) of the model; blocks that are left out are ``nn.Identity``. Where the
    model's own code holds a number or a block, which no attribute could change, it is the graph that ``torch.export``
    makes of the model in eval mode, with a batch of any size, if the model takes any.

    :param supernet: The super-network.
    :param subnet: A subnet of its space.
    :param prepare: Called with the small module before it may become a graph, for example to recalibrate its BatchNorm
        statistics.
    :return: The module, on the device of the super-network.
    :raises SubnetError: If the subnet is not in the space.
    :raises ExportError: If the model's code needs ``torch.export`` and that fails, or other algorithms of NNCF 2 have
        changed the model.
    """
    with supernet.activate(subnet):
        skip = Skip(
            supernet.graph,
            supernet.executor.skipped(supernet.active),
            partial(supernet.shape, subnet=supernet.active),
        )
        hooks = _needed_code_hooks(supernet)
        adapted = supernet.graph.adapted and supernet.active != supernet.space.maximum
        if not hooks and not skip.needs_mode and not adapted:
            stand_ins = _stand_ins(supernet, skip)
            with supernet.statistics():
                small = _small_copy(supernet, stand_ins)
            if not stand_ins or _agrees(supernet, small):
                if prepare is not None:
                    prepare(small)
                return small
        if _nncf.is_compressed(supernet.model):
            msg = (
                "The subnet changes numbers or blocks of the model's own code, so it would be extracted by "
                "torch.export, which cannot see what other algorithms of NNCF 2 have added to the model, such as "
                "quantizers. Leave them out of the config, and give the extracted model to `nncf.quantize`."
            )
            raise ExportError(msg)
        with supernet.statistics():
            small = _small_copy(supernet, {})
        patched = _Patched(small, hooks, skip, supernet.graph)
        if prepare is not None:
            prepare(patched)
        return _exported(patched, supernet.example, fixed=not supernet.graph.takes_any_batch)


class _StandIn(nn.Module):
    """Stands for a module that is left out."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class _Patched(nn.Module):
    """A small copy of a model whose own code still holds numbers or blocks of the maximum subnet."""

    def __init__(
        self, small: nn.Module, hooks: dict[tuple[str, int], Callable[[Any], Any]], skip: Skip, graph: ModelGraph
    ) -> None:
        super().__init__()
        self.small = small
        self.train(small.training)

        @wraps(small.forward)  # torch.export names the inputs after the signature
        def forward(*args: Any, **kwargs: Any) -> Any:
            skip.read_inputs(ExampleInput(args, kwargs).named(small.forward))
            with (
                shadowed(small, skip.forwards),
                HookMode(small, hooks, skip.replace, skip.keep, None, skip.counters) as mode,
            ):
                try:
                    return small(*args, **kwargs)
                finally:  # where another path has led to an error, it is the path that must be told
                    check_counts(graph, mode.calls, {op for op, _ in hooks} | skip.replace.keys() | skip.keep.keys())

        self.forward = forward


def _needed_code_hooks(supernet: Supernet) -> dict[tuple[str, int], Callable[[Any], Any]]:
    """Returns what changes arguments that the model's code makes, where they are wrong in the active subnet."""
    is_small = supernet.active != supernet.space.maximum
    return {
        port.key: port.change
        for port in supernet.executor.ports
        if not port.sources and (port.changes() or (port.unsteady and is_small))
    }


def _stand_ins(supernet: Supernet, skip: Skip) -> dict[int, nn.Module]:
    """Returns by ``id`` of a module that is left out what stands in its place."""
    model = supernet.model
    calls = {call.module: call for call in supernet.graph.single_calls}
    stand_ins: dict[int, nn.Module] = {}
    for path, function in skip.stand_ins.items():
        module = model.get_submodule(path)
        is_identity = function is pass_through and calls[path].arguments == 1
        stand_in = nn.Identity() if is_identity else _StandIn(function)
        vars(stand_in).update(_settings(module))
        stand_ins[id(module)] = stand_in.train(model.training)
    return stand_ins


def _agrees(supernet: Supernet, small: nn.Module) -> bool:
    """Whether a copy without some modules computes what the subnet does: code around them may look at what they are."""
    results = []
    with torch.no_grad():
        for model in (supernet.model, small):
            example = supernet.example.map(torch.clone).to(supernet.device)
            if supernet.graph.takes_any_batch:  # a size of 1 could be anything's
                example = example.with_batch(example.batch_size + 1)
            with evaluation_mode(model):
                try:
                    results.append(pytree.tree_leaves(model(*example.args, **example.kwargs)))
                except Exception:  # the code asks what stands in for a module for what it is, or has
                    return False
    pairs = zip(*results, strict=True)
    return all(torch.allclose(a, b, 1e-3, 1e-5, equal_nan=True) for a, b in pairs if isinstance(a, Tensor))


def _small_copy(supernet: Supernet, stand_ins: Mapping[int, nn.Module]) -> nn.Module:
    """Copies the model, with the active subnet's values in the place of the attributes that it changes."""
    model = supernet.model
    supernet.forget()
    replaced: dict[int, Any] = {**stand_ins}
    plain: dict[Place, Any] = {}
    with torch.no_grad():
        for place, value in supernet.executor.shadows.values().items():
            original = getattr(model.get_submodule(place.module), place.attribute)
            if isinstance(original, nn.Parameter):
                replaced[id(original)] = nn.Parameter(value.clone(), original.requires_grad)
            elif isinstance(original, Tensor):
                replaced[id(original)] = value.clone()
            else:
                plain[place] = value
    small = _nncf.bare_copy(model, replaced)
    left = dict(small.named_modules())
    for place, value in plain.items():
        if place.module in left and hasattr(left[place.module], place.attribute):
            setattr(left[place.module], place.attribute, value)
    with evaluation_mode(small), torch.no_grad():  # a weight that is computed may change what it is computed from
        for module in left.values():
            _describe(module)
    return small


def _settings(module: nn.Module) -> dict[str, Any]:
    """Returns a module's numbers and texts, which the code around it may read even where the module is left out."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and isinstance(value, (str, int, float, bool, type(None)))
    }


def _exported(patched: _Patched, example: ExampleInput, fixed: bool) -> nn.Module:
    """Freezes the patched model into a graph with a dynamic batch, unless it is fixed, without the patches."""
    shapes = example.map(lambda tensor: {0: torch.export.Dim.AUTO} if example.has_batch(tensor) and not fixed else {})
    example = example if fixed else example.with_batch(2)
    named = inspect.signature(patched.forward).bind(*shapes.args, **shapes.kwargs).arguments
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # What the model's code keeps from its calls, the graph computes each time.
            warnings.filterwarnings("ignore", ".*assigned during export", UserWarning)
            program = torch.export.export(patched.eval(), example.args, example.kwargs, dynamic_shapes=named)
    except Exception as error:
        msg = (
            "The model's own code holds sizes or blocks that the subnet changes, so it is extracted by torch.export, "
            f"which failed: {type(error).__name__}: {first_line(error).rstrip('.')}. Let the code compute sizes from "
            "shapes, put blocks into modules of their own, and let it run the same operations while it is exported."
        )
        raise ExportError(msg) from error
    module = program.module()
    module.graph.eliminate_dead_code()
    return torch.fx.GraphModule(module, module.graph)  # a plain one, which may change its mode


def _describe(module: nn.Module) -> None:
    """Sets the attributes that only describe a layer's size, so that what it prints is true."""
    if isinstance(module, _ConvNd):
        first, second = module.weight.shape[:2]
        incoming, outgoing = (first, second) if module.transposed else (second, first)
        module.in_channels = incoming * (1 if module.transposed else module.groups)
        module.out_channels = outgoing * (module.groups if module.transposed else 1)
        module.kernel_size = tuple(module.weight.shape[2:])
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NormBase):
        tensor = module.running_mean if module.weight is None else module.weight
        module.num_features = module.num_features if tensor is None else len(tensor)
    elif isinstance(module, nn.GroupNorm) and module.weight is not None:
        module.num_channels = len(module.weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
