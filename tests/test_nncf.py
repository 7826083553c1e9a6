"""The door to NNCF: the trace agrees with NNCF's own graph, and wrapping leaves no trace."""

from __future__ import annotations

import copy
import importlib.util
import re
from typing import Any

import nncf
import pytest
import torch
import torch.nn.functional as F
from nncf.torch.function_hook.graph.build_graph_mode import build_graph
from nncf.torch.function_hook.graph.graph_utils import FunctionMeta
from nncf.torch.function_hook.hook_storage import HookStorage
from nncf.torch.function_hook.wrapper import wrap_model
from torch import Tensor, nn

import bootstrapnas_ext._nncf as door
from bootstrapnas_ext._nncf import host
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.graph import ModelGraph, Ref
from bootstrapnas_ext.inputs import ExampleInput
from tests.zoo import NETS, Chain, assert_equal, build, image, outputs


def traced(name: str) -> tuple[nn.Module, ExampleInput, ModelGraph]:
    model, example = build(name)
    return model, example, door.trace(model, example.args, example.kwargs)


@pytest.mark.parametrize("name", [name for name in NETS if name != "vision_transformer"])  # it has a stand-in
def test_operations_have_nncfs_names_arguments_and_ports(name: str) -> None:
    model, example, graph = traced(name)
    reference = build_graph(wrap_model(copy.deepcopy(model)), *example.args, **example.kwargs)
    metas = {node: data["meta"] for node, data in reference.nodes.items() if isinstance(data["meta"], FunctionMeta)}
    names = {op.name for op in graph.ops}
    left_out = [meta for meta in metas.values() if meta.op_name not in names]
    assert all(meta.func_name in ("dropout", "contiguous", "to") for meta in left_out)  # they gave what they got
    metas = {node: meta for node, meta in metas.items() if meta.op_name in names}
    assert [op.name for op in graph.ops] == [meta.op_name for meta in metas.values()]
    for op, (node, meta) in zip(graph.ops, metas.items(), strict=True):
        assert op.kind == meta.func_name.strip("_") or op.kind in ("T", "mT")
        assert len(op.args) == len(meta.args)
        assert set(op.kwargs) == set(meta.kwargs)
        ports = sorted(data["meta"].input_port for _, _, data in reference.in_edges(node, data=True))
        found = [port for port, _ in op.tensor_ports]
        assert found == ports or (name == "dict_input" and set(ports) < set(found))  # NNCF sees no nested input
        assert [graph.values[value].shape for value in op.outputs]


def test_tensors_know_where_they_come_from() -> None:
    _, _, graph = traced("functional")
    sources = {value.name: value.source for value in graph.values if value.source != "op"}
    assert sources == {
        "x": "input",
        "kernel": "parameter",
        "mean": "buffer",
        "variance": "buffer",
        "gain": "parameter",
        "pointwise": "parameter",
        "matrix": "parameter",
    }
    convolution = graph.ops[0]
    assert (convolution.name, convolution.kind, convolution.module) == ("/conv2d/0", "conv2d", "")
    assert isinstance(convolution.args[1], Ref)
    assert graph.values[convolution.args[1].value].shape == (16, 3, 3, 3)
    assert convolution.kwargs == {"padding": 1}


def test_inputs_have_the_names_of_the_parameters() -> None:
    for name, expected in (("two_inputs", ["x", "y"]), ("dict_input", ["batch['x']", "batch['y']"])):
        _, _, graph = traced(name)
        assert [value.name for value in graph.values if value.source == "input"] == expected


def test_outputs_are_found_in_structures() -> None:
    _, _, graph = traced("dict_output")
    made_by = [graph.ops[graph.producer[value]].name for value in graph.outputs]
    assert made_by == ["head/fc/linear/0", "two/2/relu/0"]


def test_calls_of_modules_span_their_operations() -> None:
    _, _, graph = traced("residual")
    calls = {call.module: call for call in graph.calls}
    block = calls["layer1"]
    assert [op.name for op in graph.ops[block.first_op : block.end_op]] == [
        "layer1/conv1/conv2d/0",
        "layer1/bn1/batch_norm/0",
        "layer1/relu/relu_/0",
        "layer1/conv2/conv2d/0",
        "layer1/bn2/batch_norm/0",
        "layer1/add/0",
        "layer1/relu/relu_/1",
    ]
    assert block.single
    assert block.inputs == (graph.ops[block.first_op - 1].outputs[0],)
    assert block.outputs == graph.ops[block.end_op - 1].outputs
    assert block.counters["layer1.relu:relu_"] == 2
    in_place = [op.name for op in graph.ops[block.first_op : block.end_op] if op.in_place]
    assert in_place == ["layer1/relu/relu_/0", "layer1/relu/relu_/1"]


def test_a_module_that_is_called_twice_has_two_calls() -> None:
    _, _, graph = traced("called_twice")
    assert [call.module for call in graph.calls].count("again") == 2
    assert "again" not in {call.module for call in graph.single_calls}
    assert {"again/0/conv2d/0", "again/0/conv2d/1"} <= set(graph.op_index)


def test_an_assignment_by_index_is_an_operation() -> None:
    class Assigns(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.clone()
            y[:, 0] = x.shape[0]
            return y

    graph = door.trace(Assigns(), (image(),), {})
    assert [(op.kind, len(op.outputs)) for op in graph.ops] == [("clone", 1), ("setitem", 0)]


def test_attention_is_traced_and_run_by_its_stand_in() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    graph = door.trace(attention, (x, x, x), {})
    assert graph.adapted
    assert {"chunk", "softmax", "matmul"} <= {op.kind for op in graph.ops}
    assert not door.trace(Chain(), (image(),), {}).adapted
    seen: list[str] = []
    with door.HookMode(attention, {}, observe=lambda site, _: seen.append(site)):
        attention(x, x, x)
    assert {op.site for op in graph.ops} <= set(seen)


def test_a_trace_leaves_the_model_as_it_was() -> None:
    model = Chain().train()
    model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    attributes = [set(vars(module)) for module in model.modules()]
    door.trace(model, (image(),), {})
    with pytest.raises(ModelError, match="Chain could not be traced with this input: RuntimeError"):
        door.trace(model, (torch.randn(1, 4, 8, 8),), {})
    assert [module.training for module in model.modules()] == modes
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())


class Calls(nn.Module):
    """Functions whose names and arguments are known."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(self.inner(x), (0, 0))
        return torch.cat([y.view(-1, 4, 64), y.view(-1, 4, 64)], dim=1)


def test_hooks_change_arguments_of_every_kind() -> None:
    model = Calls()
    x = image()
    seen: list[Any] = []

    def note(value: Any) -> Any:
        seen.append(value)
        return value

    hooks = {
        ("inner:conv2d:0", 1): lambda weight: weight * 0,
        (":pad:0", 1): lambda _: (1, 1),
        (":view:0", 3): lambda _: 80,
        (":view:1", 3): lambda _: 80,
        (":cat:0", 1): lambda second: second + 1,
        (":cat:0", 2): note,
        (":view:7", 1): note,
    }
    with door.HookMode(model, hooks):
        result = model(x)
    assert result.shape == (1, 8, 80)
    assert seen == [1]
    plain = model.inner.bias.view(4, 1).expand(4, 64)  # type: ignore[union-attr]
    inner = result[0, :4].view(4, 8, 10)
    assert torch.equal(inner[:, :, 1:-1].reshape(4, 64), plain)
    assert torch.equal(result[0, 4:], result[0, :4] + 1)
    assert model(x).shape == (1, 8, 64)


def test_operations_are_replaced_observed_and_kept() -> None:
    model, x = Calls(), image()
    kept: list[Any] = []
    observed: list[str] = []
    with door.HookMode(
        model,
        {},
        replace={":view:0": lambda: torch.zeros(1, 4, 64)},
        keep={":pad:0": kept.append},
        observe=lambda name, _: observed.append(name),
    ):
        result = model(x)
    assert not result[:, :4].any()
    assert result[:, 4:].any()
    assert kept[0].shape == (1, 4, 8, 8)
    assert observed == ["inner:conv2d:0", ":pad:0", ":view:1", ":cat:0"]


class ReluTwice(nn.Module):
    """The function is one operation in place, and another one otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.relu(x.neg(), inplace=True).flatten())


def test_a_function_that_calls_an_operation_is_not_taken_for_another_of_its_name() -> None:
    model, x = ReluTwice(), image()
    observed: dict[str, int] = {}
    replace = {":relu:0": lambda: torch.ones(3)}
    with door.HookMode(model, {}, observe=lambda site, result: observed.update({site: result.dim()})):
        model(x)
    assert observed == {":neg:0": 4, ":relu_:0": 4, ":flatten:0": 1, ":relu:0": 1}
    with door.HookMode(model, {}, replace=replace):
        assert model(x).tolist() == [1, 1, 1]


def test_a_wrapped_model_is_run_by_the_runner() -> None:
    model = Calls()
    x = image()
    expected = model(x)
    calls: list[Any] = []

    def runner(forward: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return forward(*args, **kwargs) + 1

    door.wrap(model, runner)
    assert torch.equal(model(x=x), expected + 1)
    assert len(calls) == 1
    assert list(calls[0][1]) == ["x"]
    assert torch.equal(door.original_forward(model)(x), expected)
    with pytest.raises(ModelError, match="has NNCF hooks already"):
        door.wrap(model, runner)
    door.unwrap(model)
    assert torch.equal(model(x), expected)
    assert set(vars(model)) == set(vars(Calls()))
    assert "forward" not in vars(model)


def test_the_storage_of_hooks_is_no_layer_of_a_sequential_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    x = image()
    expected = model(x)
    door.wrap(model, lambda forward, *args: forward(*args))
    door.add_pre_hook(model, "0/conv2d/0", 1, nn.Identity())
    assert torch.equal(model(x), expected)
    assert isinstance(list(model.children())[-1], HookStorage)


def test_a_bare_copy_has_no_wrapping_and_what_is_replaced() -> None:
    model = Calls()
    door.wrap(model, lambda forward, *args: forward(*args))
    door.add_pre_hook(model, "/pad/0", 1, nn.Identity())
    weight = nn.Parameter(torch.zeros(4, 3, 1, 1))
    small: Any = door.bare_copy(model, {id(model.inner.weight): weight})
    assert set(vars(small)) == set(vars(Calls()))
    assert list(small.state_dict()) == ["inner.weight", "inner.bias"]
    assert small.inner.weight is weight
    assert small.inner.bias is not model.inner.bias
    assert model.inner.weight.any()
    assert torch.equal(small(image())[0, 0, 0], model.inner.bias[0])  # type: ignore[index]
    assert any("nncf" in name for name, _ in model.named_modules())


@pytest.mark.parametrize("name", NETS)
def test_tracing_changes_no_result(name: str) -> None:
    model, example = build(name)
    before = outputs(model, example)
    door.trace(model, example.args, example.kwargs)
    assert_equal(outputs(model, example), before)


def imported_with(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the module again under another name, so that the one in use stays as it is."""
    monkeypatch.setattr(nncf, "__version__", version)
    spec = importlib.util.spec_from_file_location("another_door", host.__file__)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("version", ["2.18.0", "4.0.0", "4.0rc1", "4.1.dev0+1234", "1.9"])
def test_a_version_of_nncf_that_is_not_supported_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = rf"NNCF 2\.19 or 3\.x is needed, but {re.escape(version)} is installed; run: pip"
    with pytest.raises(ImportError, match=message):
        imported_with(version, monkeypatch)


@pytest.mark.parametrize("version", ["3.5.0", "3.9.0rc2", "3.10.0.dev0+1234"])
def test_a_version_of_nncf_that_was_not_tried_is_one_warning(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = rf"NNCF {re.escape(version)} is newer than 3\.4, the newest that bootstrapnas_ext is tested with"
    with pytest.warns(UserWarning, match=message) as caught:
        imported_with(version, monkeypatch)
    assert len(caught) == 1


def test_operations_of_libraries_are_no_others_of_the_same_name() -> None:
    class Calls(nn.Module):
        """Calls two operations by their place in the table of all operations."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.aten.relu.default(torch.ops.prims.sin(torch.ops.aten.add(x, 1)))

    graph = door.trace(Calls(), (torch.randn(2),), {})
    assert [op.kind for op in graph.ops] == ["add", "prims::sin", "relu"]


def test_parameters_in_the_same_memory_know_each_other() -> None:
    class Shares(nn.Module):
        """Of one memory, two parameters have overlapping parts, and one has a part of its own."""

        def __init__(self) -> None:
            super().__init__()
            memory = torch.zeros(30)
            self.a, self.b = nn.Parameter(memory[:10]), nn.Parameter(memory[10:20].view(5, 2))
            self.c, self.d = nn.Parameter(memory[18:]), nn.Parameter(torch.zeros(10))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.a.sum() + self.b.sum() + self.c.sum() + self.d.sum()

    graph = door.trace(Shares(), (torch.randn(2),), {})
    alias = {value.name: value.alias for value in graph.values if value.source == "parameter"}
    (b,) = (value.index for value in graph.values if value.name == "b")
    assert alias == {"a": None, "b": None, "c": b, "d": None}
