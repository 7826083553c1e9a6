"""The trace as values: how arguments are found and how ports are counted."""

from __future__ import annotations

import pytest

from bootstrapnas_ext.graph import ModelGraph, ModuleCall, Op, Ref, Value


def op(*args: object, **kwargs: object) -> Op:
    return Op("f/0", "f", "", args, kwargs, (9,))


def test_an_argument_is_found_whichever_way_it_was_passed() -> None:
    assert op(Ref(0), 5).argument(1, "groups") == 5
    assert op(Ref(0), groups=5).argument(1, "groups") == 5
    assert op(Ref(0)).argument(1, "groups", 1) == 1


def test_ports_count_positional_arguments_then_keywords() -> None:
    call = op(Ref(0), 3, stride=(1, 1), padding=2)
    assert [call.port(0, "input"), call.port(1, "k"), call.port(9, "stride"), call.port(9, "padding")] == [0, 1, 2, 3]
    assert call.port(7, "missing") is None
    assert call.at_port(2) == ("stride", (1, 1))
    with pytest.raises(KeyError, match="4"):
        call.at_port(4)


def test_each_tensor_of_a_list_has_a_port() -> None:
    call = op([Ref(4), Ref(5)], 1, out=Ref(6))
    assert call.tensor_ports == ((0, 4), (1, 5), (3, 6))
    assert call.port(1, "dim") == 2


def test_an_empty_list_has_no_port_and_a_mixed_one_has_one() -> None:
    assert op((), Ref(1)).tensor_ports == ((0, 1),)
    mixed = op([Ref(4), 3], Ref(1))
    assert mixed.tensor_ports == ((1, 1),)
    assert mixed.tensors == (4, 1)


def test_tensors_are_found_in_any_nesting() -> None:
    call = op({"a": [Ref(1), (Ref(2), None)]}, slice(None, Ref(3)), x=Ref(4))
    assert call.tensors == (1, 2, 3, 4)


def test_a_graph_knows_who_makes_and_who_reads_a_tensor() -> None:
    values = tuple(Value(index, (1,), "op", f"{index}") for index in range(4))
    first = Op("a/0", "a", "", (Ref(0),), {}, (1, 2))
    second = Op("b/0", "b", "", (Ref(1), Ref(1), Ref(2)), {}, (3,))
    call = ModuleCall("m", 1, (0,), (1,), True, 0, 1, {})
    again = ModuleCall("n", 1, (0,), (1,), True, 0, 1, {})
    graph = ModelGraph((first, second), values, (3,), (call, again, again))
    assert graph.producer == {1: 0, 2: 0, 3: 1}
    assert graph.consumers == {0: (0,), 1: (1,), 2: (1,)}
    assert graph.op_index == {"a/0": 0, "b/0": 1}
    assert graph.single_calls == (call,)


def test_constants_are_parameters_and_buffers() -> None:
    sources = ("input", "parameter", "buffer", "op", "unknown")
    assert [Value(0, (), source, "").is_constant for source in sources] == [False, True, True, False, False]
