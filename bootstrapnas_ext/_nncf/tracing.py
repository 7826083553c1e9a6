"""The only door to NNCF's function-hook modules: tracing, hook registration, and running a model with hooks.

NNCF names every operation by the module that calls it, the function and a counter (``layer1/0/conv1/conv2d/0``), and
addresses its arguments by port numbers. A pre-op hook is an ``nn.Module`` that gets the argument and returns what the
operation sees instead.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from types import MethodType
from typing import Any, NamedTuple, TypeVar

import nncf
import torch
from nncf.torch.function_hook.graph.build_graph_mode import GraphBuilderMode
from nncf.torch.function_hook.handle_inner_functions import get_handle_inner_function
from nncf.torch.function_hook.hook_executor_mode import FunctionHookMode, OpMeta
from nncf.torch.function_hook.hook_storage import HookStorage
from nncf.torch.function_hook.wrapper import (
    ATR_HOOK_STORAGE,
    ForwardWithHooks,
    get_hook_storage,
    is_wrapped,
    register_pre_function_hook,
    wrap_model,
)
from torch import nn
from torch.utils import _pytree as pytree

from bootstrapnas_ext.errors import ModelError, first_line
from bootstrapnas_ext.functions import STAND_INS
from bootstrapnas_ext.graph import ModelGraph, ModuleCall, Op, Path, Place, Ref, Value
from bootstrapnas_ext.inputs import ExampleInput, refuse_hidden_tensors
from bootstrapnas_ext.marks import marked, places, without_mark

__all__ = [
    "HookMode",
    "add_module",
    "add_pre_hook",
    "bare_copy",
    "copy_of",
    "original_forward",
    "trace",
    "unwrap",
    "wrap",
]

TModel = TypeVar("TModel", bound=nn.Module)
_OLDEST, _TOO_NEW = (3, 0), (4, 0)
_VERSION = tuple(int(part) for part in nncf.__version__.split(".")[:2])
if not _OLDEST <= _VERSION < _TOO_NEW:
    _MSG = f"NNCF 3.x is needed, but {nncf.__version__} is installed; run: pip install 'nncf>=3.0,<4'"
    raise ImportError(_MSG)


class _Sites:
    """
    Numbers the calls of each function in each module.

    :param model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._paths: dict[int, str] = {id(module): name for name, module in model.named_modules()}
        self.calls: Counter[str] = Counter()

    def path(self, module: nn.Module) -> str:
        """Returns the dotted path of a module."""
        return self._paths.get(id(module), "")

    def stem(self, module: nn.Module, function: str) -> str:
        """Returns a site without its number."""
        return f"{self.path(module)}:{function}"

    def next(self, module: nn.Module, function: str) -> str:
        """Returns the site of the next call, and counts it."""
        site = self.peek(module, function)
        self.calls[self.stem(module, function)] += 1
        return site

    def peek(self, module: nn.Module, function: str) -> str:
        """Returns the site of the next call."""
        stem = self.stem(module, function)
        return f"{stem}:{self.calls[stem]}"


@dataclass(frozen=True)
class _Pending:
    """An operation that has begun, with what is known of its arguments, and the tensors that it has made."""

    op_meta: OpMeta
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    places: Mapping[Path, Place]
    made: list[int] = field(default_factory=list)


class _Tracer(GraphBuilderMode):
    """NNCF's graph builder, which also keeps all shapes, module calls and nested inputs and outputs."""

    def __init__(self, model: nn.Module, keep: Container[str]) -> None:
        super().__init__(model=model, hook_storage=HookStorage())
        self._keep = keep
        self.passed: set[str] = set()
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.adapted: set[str] = set()
        self.calls: list[ModuleCall | None] = []
        self._index: dict[tuple[int, int], int] = {}
        self._unknown: list[tuple[torch.Tensor, int]] = []
        self._constants: dict[int | None, list[tuple[_Span, int]]] = {}
        self._pending: dict[int, _Pending] = {}
        self.sites = _Sites(model)
        self._site_of: dict[str, str] = {}
        self._memory: dict[int | None, int] = {}

    def get_next_op_call_name(self, fn_name: str) -> str:
        name: str = super().get_next_op_call_name(fn_name)
        self._site_of[name] = self.sites.next(self.module_call_stack[-1], fn_name)
        return name

    def _add_value(self, tensor: torch.Tensor, source: str, name: str, alias: int | None = None) -> int:
        with self.disable():  # reading a shape is a function call too
            shape, is_mask = tuple(tensor.shape), tensor.dtype in (torch.bool, torch.uint8)
        self.values.append(Value(len(self.values), shape, source, name, is_mask, alias))
        return len(self.values) - 1

    def value_of(self, tensor: torch.Tensor) -> int:
        """Returns the index of a tensor's value."""
        with self.disable():
            info = self.tensor_info.get(tensor)
        if info is None:
            for known, index in self._unknown:
                if known is tensor:
                    return index
            index = self._add_value(tensor, "unknown", "")
            self._unknown.append((tensor, index))
            return index
        if info.name_in_model is not None:
            key = (id(tensor), -1)
            if key not in self._index:
                with self.disable():
                    span = _span(tensor)
                neighbours = self._constants.setdefault(span.memory, [])
                alias = next((index for other, index in neighbours if _overlap(span, other)), None)
                self._index[key] = self._add_value(tensor, str(info.tensor_source), info.name_in_model, alias)
                neighbours.append((span, self._index[key]))
            return self._index[key]
        assert info.source_node_id is not None
        return self._index[info.source_node_id, info.output_port_id]

    def _to_ref(self, leaf: Any) -> Any:
        return Ref(self.value_of(leaf)) if isinstance(leaf, torch.Tensor) else without_mark(leaf)

    def _map_refs(self, tree: Any) -> Any:
        with self.disable():
            return pytree.tree_map(self._to_ref, tree)

    def register_input(self, name: str, tensor: torch.Tensor) -> None:
        """Makes a tensor an input of the graph."""
        super().register_node_for_model_input_tensor(name, tensor)
        node = self.next_node_id - 1
        self._index[node, 0] = self._add_value(tensor, "input", name)

    def execute_hooks_for_model_input(self, name: str, value: Any) -> Any:
        self.register_input(name, value)
        return value

    def register_op_input_tensor(self, tensor: torch.Tensor, op_node_id: int, port_id: int, op_meta: OpMeta) -> None:
        """Draws no edge: NNCF has no node for a parameter in a tuple, and its drawing is not what is kept here."""

    def register_op_node(self, args: Any, kwargs: dict[str, Any], op_meta: OpMeta) -> None:
        super().register_op_node(args, kwargs, op_meta)
        node = op_meta.extra_info["node_id"]
        with self.disable():
            found = {path[1:]: place for path, place in places((tuple(args), kwargs)).items()}
        self._pending[node] = _Pending(op_meta, self._map_refs(tuple(args)), self._map_refs(kwargs), found)
        with self.disable():
            tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            self._memory = {_memory(tensor): self.value_of(tensor) for tensor in tensors if tensor.numel()}

    def process_post_function_hooks_for_value(self, value: Any, op_meta: OpMeta, port_id: int) -> Any:
        known = self._passed_through(value, op_meta) if isinstance(value, torch.Tensor) else None
        result = super().process_post_function_hooks_for_value(value, op_meta, port_id)
        if isinstance(value, torch.Tensor):
            node = op_meta.extra_info["node_id"]
            if known is None:
                with self.disable():
                    alias = self._memory.get(_memory(value))
                known = self._add_value(value, "op", op_meta.op_name, alias)
                self._pending[node].made.append(known)
            self._index[node, port_id] = known
        return result

    def _passed_through(self, value: torch.Tensor, op_meta: OpMeta) -> int | None:
        """Returns the index of a tensor that an operation returns just as it got it, such as a cast to its own type."""
        pending = self._pending[op_meta.extra_info["node_id"]]
        function = _function_name(op_meta.func)
        site = self._site_of[op_meta.op_name]
        if _is_in_place(function) or pending.kwargs.get("out") is not None or site in self._keep:
            return None
        with self.disable():
            known = self.tensor_info.get(value) is not None
        passed = {leaf.value for leaf in pytree.tree_leaves((pending.args, pending.kwargs)) if isinstance(leaf, Ref)}
        if not known or (index := self.value_of(value)) not in passed:
            return None
        self.passed.add(site)
        return index

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in STAND_INS:
            return super().__torch_function__(func, types, args, kwargs)
        self.adapted.add(self.sites.path(self.module_call_stack[-1]))
        return _run_stand_in(self, func, args, kwargs)

    def execute_post_hooks(self, outputs: Any, op_meta: OpMeta) -> Any:
        result = super().execute_post_hooks(outputs, op_meta)
        pending = self._pending.pop(op_meta.extra_info["node_id"])
        op_meta = pending.op_meta
        function = _function_name(op_meta.func)
        if pending.made or function == "__setitem__":  # the only one that changes a tensor and returns none
            self.ops.append(
                Op(
                    name=op_meta.op_name,
                    kind=function.strip("_"),
                    in_place=_is_in_place(function) or pending.kwargs.get("out") is not None,
                    module=self.sites.path(self.module_call_stack[-1]),
                    args=pending.args,
                    kwargs=pending.kwargs,
                    outputs=tuple(pending.made),
                    site=self._site_of[op_meta.op_name],
                    places=pending.places,
                )
            )
        return result

    def _get_wrapped_call(self, fn_call: MethodType) -> Callable[..., Any]:
        wrapped = super()._get_wrapped_call(fn_call)

        def recorded(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            place, first, counters = len(self.calls), len(self.ops), dict(self.sites.calls)
            self.calls.append(None)
            inputs = tuple(self._tensors((args, kwargs)))
            result = wrapped(module, *args, **kwargs)
            self.calls[place] = ModuleCall(
                module=self.sites.path(module),
                arguments=len(args) + len(kwargs),
                inputs=inputs,
                outputs=tuple(self._tensors(result)),
                single=bool(args)
                and isinstance(args[0], torch.Tensor)
                and isinstance(result, torch.Tensor)
                and not (module._forward_hooks or module._forward_pre_hooks),
                first_op=first,
                end_op=len(self.ops),
                counters={stem: count for stem, count in self.sites.calls.items() if count != counters.get(stem)},
                result=self._map_refs(result),
            )
            return result

        return recorded

    def _tensors(self, tree: Any) -> Iterator[int]:
        with self.disable():
            for leaf in pytree.tree_leaves(tree):
                if isinstance(leaf, torch.Tensor):
                    yield self.value_of(leaf)


class _Span(NamedTuple):
    """The bytes of a memory between the first and the last item of a tensor; none if it has no such memory."""

    memory: int | None
    start: int
    end: int


def _span(tensor: torch.Tensor) -> _Span:
    memory = _memory(tensor)
    if memory is None or not tensor.numel():
        return _Span(None, 0, 0)
    last = sum((size - 1) * int(step) for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    start, size = int(tensor.storage_offset()), tensor.element_size()
    return _Span(memory, start * size, (start + last + 1) * size)


def _overlap(one: _Span, two: _Span) -> bool:
    return one.start < two.end and two.start < one.end


def _memory(tensor: torch.Tensor) -> int | None:
    """Returns what tensors have in common that share memory; ``None`` for one that has no memory of the usual kind."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else None


def _function_name(function: Callable[..., Any]) -> str:
    """Returns the name by which rules know a function; that of a library's own operation tells the library, too."""
    if isinstance(function, torch._ops.OpOverload):
        function = function.overloadpacket
    if isinstance(function, torch._ops.OpOverloadPacket):
        library, _, name = function._qualified_op_name.partition("::")
        return name if library == "aten" else f"{library}::{name}"
    if function.__name__ == "__get__":  # reading an attribute such as .T
        return str(function.__self__.__name__)  # type: ignore[attr-defined]
    return function.__name__


def _is_in_place(function_name: str) -> bool:
    if function_name.startswith("__"):
        return function_name.startswith("__i") and function_name not in ("__invert__", "__index__", "__int__")
    return function_name.endswith("_")


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], keep: Container[str] = ()) -> ModelGraph:
    """
    Runs the model once in eval mode and without gradients, and records what it did.

    :param model: Any module; it is left as it was.
    :param args: Positional arguments for it, with tensors anywhere inside.
    :param kwargs: Keyword arguments likewise.
    :param keep: Sites of operations that are kept though they return just what they got.
    :raises ModelError: If the model fails on this input.
    """
    forward = original_forward(model) if is_wrapped(model) else model.forward
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad(), marked(model), _Tracer(model, keep) as tracer:
            refuse_hidden_tensors((args, kwargs), "The example input")
            for name, tensor in ExampleInput(args, dict(kwargs)).named(forward).items():
                tracer.register_input(name, tensor)
            outputs = forward(*args, **kwargs)
            refuse_hidden_tensors(outputs, "What the model returns")
            returned = tuple(tracer._tensors(outputs))
        if not returned:
            found = type(outputs).__name__
            msg = (
                f"The model must return a tensor, or tuples, lists or dictionaries of them, but it returned a {found}."
            )
            raise ModelError(msg)
    except ModelError:
        raise
    except Exception as error:
        msg = (
            f"The model {type(model).__name__} could not be traced with this input: {type(error).__name__}: "
            f"{first_line(error)}. Check `input_info` (shapes, types and keywords) or pass a `dummy_forward_fn`."
        )
        raise ModelError(msg) from error
    finally:
        for module, mode in training.items():
            module.training = mode
    return ModelGraph(
        ops=tuple(tracer.ops),
        values=tuple(tracer.values),
        outputs=returned,
        calls=tuple(call for call in tracer.calls if call is not None),
        counts=dict(tracer.sites.calls),
        passed=frozenset(tracer.passed),
        adapted=frozenset(tracer.adapted),
    )


class HookMode(FunctionHookMode):
    """
    Runs a model with given pre-op hooks, and without given operations, which are known by :attr:`Op.site`.

    :param model: The model.
    :param hooks: From operation and port to a function of the argument.
    :param replace: From an operation that must not run to a function that returns its result instead.
    :param keep: From operation to a function that is called with the operation's result.
    :param observe: Called with the site and the result of every operation.
    :param counters: For modules that do not run what they ran in the trace, by path, the counters that the trace had
        after their call: operations after it keep their names.
    """

    def __init__(
        self,
        model: nn.Module,
        hooks: Mapping[tuple[str, int], Callable[[Any], Any]],
        replace: Mapping[str, Callable[[], Any]] | None = None,
        keep: Mapping[str, Callable[[Any], None]] | None = None,
        observe: Callable[[str, Any], None] | None = None,
        counters: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        super().__init__(model=model, hook_storage=_DictStorage(hooks))
        self._replace = replace or {}
        self._keep = keep or {}
        self._observe = observe
        self._counters = {id(model.get_submodule(path)): counts for path, counts in (counters or {}).items()}
        self._sites = _Sites(model)

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each function ran in each module, by :attr:`Op.site` without the number."""
        return self._sites.calls

    def get_next_op_call_name(self, fn_name: str) -> str:
        return self._sites.next(self.module_call_stack[-1], fn_name)

    def _get_wrapped_call(self, fn_call: MethodType) -> Callable[..., Any]:
        wrapped: Callable[..., Any] = super()._get_wrapped_call(fn_call)
        counters = self._counters.get(id(fn_call.__self__))
        if counters is None:
            return wrapped

        def counted(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = wrapped(module, *args, **kwargs)
            self._sites.calls.update(counters)
            return result

        return counted

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in STAND_INS:
            return _run_stand_in(self, func, args, kwargs)
        only_calls_others = get_handle_inner_function(func) is not None  # it is no operation, but may be named like one
        if only_calls_others or not self.enabled or not (self._replace or self._keep or self._observe):
            return super().__torch_function__(func, types, args, kwargs)
        # The counter has not yet been moved on, so the site of this call is peeked at.
        site = self._sites.peek(self.module_call_stack[-1], func.__name__)
        if site in self._replace:
            self._sites.next(self.module_call_stack[-1], func.__name__)
            return _like_result_of(func, self._replace[site]())
        result = super().__torch_function__(func, types, args, kwargs)
        with self.disable():
            if site in self._keep:
                self._keep[site](result)
            if self._observe is not None:
                self._observe(site, result)
        return result

    def execute_pre_hooks(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], op_meta: OpMeta
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        with self.disable():  # what a hook computes is no operation of the model, and must not be counted as one
            hooked: tuple[tuple[Any, ...], dict[str, Any]] = super().execute_pre_hooks(args, kwargs, op_meta)
        return hooked


def _run_stand_in(
    mode: FunctionHookMode, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> Any:
    """Runs what stands in for a function, and traces or hooks the operations inside."""
    with mode:
        return STAND_INS[func](*args, **(kwargs or {}))


def _like_result_of(func: Callable[..., Any], result: Any) -> Any:
    """Gives several results the names by which a model may ask for them, as in ``x.max(1).values``."""
    named = getattr(torch.return_types, func.__name__, None)
    return named(result) if named is not None and isinstance(result, tuple) else result


class _DictStorage(HookStorage):
    """Hooks in a plain dictionary, which need not be modules of the model."""

    def __init__(self, hooks: Mapping[tuple[str, int], Callable[[Any], Any]]) -> None:
        super().__init__()
        object.__setattr__(self, "_hooks", dict(hooks))

    def execute_pre_function_hooks(self, op_name: str, port_id: int, value: Any) -> Any:
        hook = self._hooks.get((op_name, port_id))
        return value if hook is None else hook(value)

    def execute_post_function_hooks(self, op_name: str, port_id: int, value: Any) -> Any:
        return value


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
    original = _own_forward(model)
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
    original = _own_forward(model)
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


def _own_forward(model: nn.Module) -> Callable[..., Any]:
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
    own, modules = _own_forward(model), model._modules

    @wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        storage = modules.pop(ATR_HOOK_STORAGE, None)
        try:
            return own(*args, **kwargs)
        finally:
            if storage is not None:
                modules[ATR_HOOK_STORAGE] = storage

    return forward


def copy_of(model: TModel) -> TModel:
    """
    Returns a deep copy, also of a model with tensors that were computed with gradients in its attributes.

    :param model: The model.
    """
    return copy.deepcopy(model, _computed_tensors(model))


def _computed_tensors(model: nn.Module) -> dict[int, Any]:
    """
    Returns by ``id`` copies of the tensors that ``copy.deepcopy`` refuses, since they were computed with gradients.

    Code that computes a weight before each forward leaves them in attributes: pruning, the older ``weight_norm``.
    """
    attributes = [value for module in model.modules() for value in vars(module).values()]
    tensors = [value for value in attributes if isinstance(value, torch.Tensor) and not value.is_leaf]
    return {id(tensor): tensor.detach().clone() for tensor in tensors}


def bare_copy(model: nn.Module, replaced: Mapping[int, Any]) -> nn.Module:
    """
    Returns a copy of a model without the wrapping.

    :param model: A wrapped model.
    :param replaced: For objects inside the model, by ``id``, what the copy has in their place.
    """
    nothing = object()
    hidden = (model.forward, model._replicate_for_data_parallel, get_hook_storage(model))
    # What deepcopy finds in its memo, it takes for the copy, so that what is replaced is never copied.
    memo = {**_computed_tensors(model), **replaced, **{id(part): nothing for part in hidden}}
    small = copy.deepcopy(model, memo)
    del small.forward, small._replicate_for_data_parallel, small._modules[ATR_HOOK_STORAGE]
    package = __name__.partition(".")[0]
    for module in small.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__module__", "").partition(".")[0] == package:  # such as those of distillation
                del module._forward_hooks[key]
                module._forward_hooks_with_kwargs.pop(key, None)
    original = _own_forward(model)
    del model.__dict__["forward"]
    if model.forward != original:
        small.forward = copy.deepcopy(original, memo)
    model.forward = hidden[0]
    return small
