"""Layouts of whole models: which tensors share a group, and what stays frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext.graph import AXIS_RULES, Layout, Op, Propagation
from tests.zoo import NETS, build


def propagate(name: str) -> Propagation:
    model, example = build(name)
    return Propagation(_nncf.trace(model, example.args, example.kwargs))


def groups(p: Propagation, module: str) -> set[int]:
    """Groups of the output channels of a module."""
    layer = next(layer for layer in p.layers if layer.op.module == module)
    return {segment.group for segment in p.solver.resolve(layer.axis)}


@pytest.mark.parametrize("name", NETS)
def test_every_tensor_has_a_layout_of_its_shape(name: str) -> None:
    p = propagate(name)
    for value in p.graph.values:
        assert tuple(p.solver.length(axis) for axis in p.layout(value.index)) == value.shape


def test_layers_that_are_added_share_their_channels() -> None:
    p = propagate("residual")
    assert groups(p, "stem.0") == groups(p, "layer1.conv2")
    assert groups(p, "layer2.0.downsample.0") == groups(p, "layer2.1.conv2") == groups(p, "layer2.2.conv2")
    assert groups(p, "layer1.conv1").isdisjoint(groups(p, "layer1.conv2"))


def test_squeeze_and_excitation_shares_the_channels_that_it_scales() -> None:
    p = propagate("mobile")
    assert groups(p, "blocks.0.excite") == groups(p, "blocks.0.expand.0") == groups(p, "blocks.0.depthwise.0")
    assert groups(p, "blocks.0.squeeze").isdisjoint(groups(p, "blocks.0.excite"))


def test_a_concat_keeps_the_groups_of_its_parts() -> None:
    p = propagate("concat")
    incoming = p.layout(next(layer for layer in p.layers if layer.op.module == "three").weight)[1]
    assert {segment.group for segment in incoming} == groups(p, "one") | groups(p, "two")


def test_padded_channels_are_groups_of_their_own() -> None:
    p = propagate("pad_shortcut")
    (axis,) = {p.solver.resolve(layer.axis) for layer in p.layers if layer.op.module == "conv"}
    assert [p.solver.size(segment.group) for segment in axis] == [8, 16, 8]
    assert axis[1].group in groups(p, "stem.0")


def test_grouped_convolutions_keep_whole_groups() -> None:
    p = propagate("grouped")
    (stem,) = p.solver.resolve(next(layer.axis for layer in p.layers if layer.op.module == "stem.0"))
    (grouped,) = p.solver.resolve(next(layer.axis for layer in p.layers if layer.op.module == "grouped.0"))
    (multiplied,) = p.solver.resolve(next(layer.axis for layer in p.layers if layer.op.module == "multiplied.0"))
    assert stem.group == grouped.group == multiplied.group
    assert (stem.repeat, grouped.repeat, multiplied.repeat, p.solver.size(stem.group)) == (8, 12, 36, 4)


def test_integers_that_follow_an_axis_are_known() -> None:
    p = propagate("concat_depthwise")
    (value,) = p.port_values
    assert (value.op.module, value.name, p.solver.length(value.axis)) == ("depthwise.0", "groups", 40)


@pytest.mark.parametrize("layouts", [[], [()], [((), ())]])
def test_a_rule_that_gives_a_wrong_layout_freezes_instead(
    layouts: list[Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_: Propagation, __: Op) -> list[Layout]:
        return layouts

    monkeypatch.setitem(AXIS_RULES._entries, "relu", wrong)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
    p = Propagation(_nncf.trace(model, (torch.randn(1, 3, 4, 4),), {}))
    assert p.solver.reason(p.layers[0].axis) == "the axis rule of 'relu' does not fit this use (1/relu/0)"
