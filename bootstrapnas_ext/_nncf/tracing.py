"""The trace: what a model computes for an example, as NNCF sees it, with all shapes and module calls."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from nncf.torch.function_hook.hook_executor_mode import OpMeta
from nncf.torch.function_hook.hook_storage import HookStorage
from torch import nn
from torch.utils import _pytree as pytree

from bootstrapnas_ext._nncf.hook_mode import run_stand_in
from bootstrapnas_ext._nncf.host import GraphBuilderMode, hand_over
from bootstrapnas_ext._nncf.memory import Span, memory_of, overlap, span_of, version_of
from bootstrapnas_ext._nncf.operators import operators_told
from bootstrapnas_ext._nncf.sites import Sites, function_name, is_in_place
from bootstrapnas_ext._nncf.wrapping import is_elastic, original_forward
from bootstrapnas_ext.errors import ModelError, first_line
from bootstrapnas_ext.functions import STAND_INS
from bootstrapnas_ext.graph import ModelGraph, ModuleCall, Op, Path, Place, Ref, Value
from bootstrapnas_ext.inputs import ExampleInput, refuse_hidden_tensors
from bootstrapnas_ext.marks import marked, places, without_mark


@dataclass(frozen=True)
class _Pending:
    """
    An operation that has begun, with what is known of its arguments, and the tensors that it has made.

    :param versions: By ``id`` of a tensor among the arguments, how often it had been written into before.
    :param overwritten: Indices of the arguments that it returned after writing into them.
    """

    op_meta: OpMeta
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    places: Mapping[Path, Place]
    versions: Mapping[int, int | None]
    made: list[int] = field(default_factory=list)
    overwritten: list[int] = field(default_factory=list)

    @property
    def says_in_place(self) -> bool:
        """Whether it overwrites an argument by its name or by another; some do so in training mode only."""
        given = self.kwargs.get("inplace") is True or self.kwargs.get("out") is not None
        return given or is_in_place(function_name(self.op_meta.func))


class _Tracer(GraphBuilderMode):
    """NNCF's graph builder, which also keeps all shapes, module calls and nested inputs and outputs."""

    def __init__(self, model: nn.Module, keep: Container[str]) -> None:
        super().__init__(model=model, hook_storage=HookStorage())
        self._keep = keep
        self.passed: dict[str, int] = {}
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.adapted: set[str] = set()
        self.calls: list[ModuleCall | None] = []
        self._index: dict[tuple[int, int], int] = {}
        self._unknown: list[tuple[torch.Tensor, int]] = []
        self._constants: dict[int | None, list[tuple[Span, int]]] = {}
        self._pending: dict[int, _Pending] = {}
        self.sites = Sites(model)
        self._site_of: dict[str, str] = {}
        self.spelled: dict[str, str] = {}
        self._spellings = Sites(model)
        self._operator: str | None = None
        self._memory: dict[int | None, int] = {}

    def get_next_op_call_name(self, fn_name: str) -> str:
        name: str = super().get_next_op_call_name(fn_name)
        module = self.module_call_stack[-1]
        self._site_of[name] = site = self.sites.next(module, fn_name)
        self.spelled[site] = self._spellings.next(module, self._operator or fn_name)
        self._operator = None
        return name

    def tell_operator(self, name: str | None) -> None:
        """Says as which operator of Python the next operation is written."""
        self._operator = name

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
                    span = span_of(tensor)
                neighbours = self._constants.setdefault(span.memory, [])
                alias = next((index for other, index in neighbours if overlap(span, other)), None)
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
            tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            versions = {id(tensor): version_of(tensor) for tensor in tensors}
        self._pending[node] = _Pending(op_meta, self._map_refs(tuple(args)), self._map_refs(kwargs), found, versions)
        with self.disable():
            self._memory = {memory_of(tensor): self.value_of(tensor) for tensor in tensors if tensor.numel()}

    def process_post_function_hooks_for_value(self, value: Any, op_meta: OpMeta, port_id: int) -> Any:
        known = self._returned(value, op_meta) if isinstance(value, torch.Tensor) else None
        result = super().process_post_function_hooks_for_value(value, op_meta, port_id)
        if isinstance(value, torch.Tensor):
            node = op_meta.extra_info["node_id"]
            if known is None:
                with self.disable():
                    alias = self._memory.get(memory_of(value))
                known = self._add_value(value, "op", op_meta.op_name, alias)
                self._pending[node].made.append(known)
            self._index[node, port_id] = known
        return result

    def _returned(self, value: torch.Tensor, op_meta: OpMeta) -> int | None:
        """
        Returns the index of a tensor that an operation returns just as it got it, such as a cast to its own type.

        What it has written into is another tensor of the graph from then on.
        """
        pending = self._pending[op_meta.extra_info["node_id"]]
        if id(value) not in pending.versions:
            return None
        index, site = self.value_of(value), self._site_of[op_meta.op_name]
        with self.disable():
            written = version_of(value) != pending.versions[id(value)]
            known = self.tensor_info.get(value) is not None
        if written or pending.says_in_place:
            pending.overwritten.append(index)
            return None
        if site in self._keep or not known:
            return None
        self.passed[site] = index
        return index

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in STAND_INS:
            return super().__torch_function__(func, types, args, kwargs)
        self.adapted.add(self.sites.path(self.module_call_stack[-1]))
        return run_stand_in(self, func, args, kwargs)

    def execute_post_hooks(self, outputs: Any, op_meta: OpMeta) -> Any:
        result = super().execute_post_hooks(outputs, op_meta)
        pending = self._pending.pop(op_meta.extra_info["node_id"])
        op_meta = pending.op_meta
        function = function_name(op_meta.func)
        returns_none = function == "__setitem__"  # the only one that changes a tensor and does not return it
        if pending.made or returns_none:
            self.ops.append(
                Op(
                    name=op_meta.op_name,
                    kind=function.strip("_"),
                    module=self.sites.path(self.module_call_stack[-1]),
                    args=pending.args,
                    kwargs=pending.kwargs,
                    outputs=tuple(pending.made),
                    overwrites=next(iter(pending.overwritten), pending.args[0].value if returns_none else None),
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


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], keep: Container[str] = ()) -> ModelGraph:
    """
    Runs the model once in eval mode and without gradients, and records what it did.

    :param model: Any module; it is left as it was.
    :param args: Positional arguments for it, with tensors anywhere inside.
    :param kwargs: Keyword arguments likewise.
    :param keep: Sites of operations that are kept though they return just what they got.
    :raises ModelError: If the model fails on this input.
    """
    forward = original_forward(model) if is_elastic(model) else model.forward
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad(), marked(model), hand_over(), _Tracer(model, keep) as tracer:
            refuse_hidden_tensors((args, kwargs), "The example input")
            for name, tensor in ExampleInput(args, dict(kwargs)).named(forward).items():
                tracer.register_input(name, tensor)
            with operators_told(tracer.tell_operator):
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
        passed=tracer.passed,
        spelled=tracer.spelled,
        adapted=frozenset(tracer.adapted),
    )
