"""Extraction: the plain module computes what the active subnet does, and nothing of the super-network is left in it."""

from __future__ import annotations

import copy
import io
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bootstrapnas_ext.config import DepthConfig, ElasticityConfig
from bootstrapnas_ext.errors import ExportError, SubnetError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import (
    NETS,
    TORCHVISION,
    Head,
    assert_close,
    build,
    conv_bn,
    image,
    other_input,
    outputs,
    some_subnets,
)


def check_extraction(name: str, count: int) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    for subnet in some_subnets(supernet, count):
        small = extract(supernet, subnet)
        for inputs in (example, other_input(example)):
            with supernet.activate(subnet), torch.no_grad():
                assert_close(outputs(small, inputs), outputs(model, inputs))


@pytest.mark.parametrize("name", NETS)
def test_the_extracted_module_computes_what_the_active_subnet_does(name: str) -> None:
    check_extraction(name, 4)


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_same_for_models_that_people_use(name: str) -> None:
    check_extraction(name, 2)


PLAIN = [name for name in NETS if name not in ("loose", "view_constant", "view_tuple", "split_list", "functional")]


@pytest.mark.parametrize("name", [*PLAIN, "mobilenet_v3_small", "densenet121"])
def test_the_extracted_module_trains_as_the_active_subnet_does(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    model.train()
    inputs = other_input(example, 4)
    for subnet in some_subnets(supernet, 2):
        small = extract(supernet, subnet)
        if isinstance(small, torch.fx.GraphModule):
            continue
        assert small.training
        torch.manual_seed(5)
        with supernet.activate(subnet):
            active = outputs(model, inputs)
        torch.manual_seed(5)
        assert_close(outputs(small, inputs), active)


@pytest.mark.parametrize("name", NETS)
def test_nothing_of_the_supernet_is_left(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    small = extract(supernet, supernet.space.minimum)
    assert supernet.active == supernet.space.maximum
    shared = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    own = [*small.parameters(), *small.buffers()]
    assert shared.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in own)
    assert not any("nncf" in key for key in small.state_dict())
    ours = {type(module).__name__ for module in small.modules() if "bootstrapnas" in type(module).__module__}
    assert ours <= {"_StandIn"}  # for modules that are left out, of more than one argument or before an addition
    with torch.no_grad():
        for tensor in small.parameters():
            tensor.zero_()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["chain", "mobile", "residual", "concat_depthwise", "norms", "conv1d", "activations"])
def test_a_plain_module_stays_one_and_describes_itself(name: str) -> None:
    model, example = build(name)
    supernet = Supernet(model, example)
    small = extract(supernet, supernet.space.minimum)
    assert type(small) is type(model)
    for module in small.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            assert module.weight.shape == (
                module.out_channels,
                module.in_channels // module.groups,
                *module.kernel_size,
            )
        elif isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert module.running_mean is not None
            assert module.running_mean.shape == (module.num_features,)
        elif isinstance(module, nn.LayerNorm):
            assert module.weight.shape == module.normalized_shape
        elif isinstance(module, nn.GroupNorm):
            assert module.weight.shape == (module.num_channels,)
        elif isinstance(module, nn.PReLU):
            assert module.weight.shape == (module.num_parameters,)


def test_a_norm_without_weights_describes_itself() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16, affine=False), Head(16)).eval()
    supernet = Supernet(model, ExampleInput((image(),)))
    assert extract(supernet, supernet.space.minimum)[1].num_features == 4


def test_the_extracted_module_is_saved_and_copied_like_any_other() -> None:
    model, example = build("mobile")
    supernet = Supernet(model, example)
    small = extract(supernet, supernet.space.minimum)
    expected = outputs(small, example)
    buffer = io.BytesIO()
    torch.save(small.state_dict(), buffer)
    buffer.seek(0)
    twin = copy.deepcopy(small)
    for tensor in twin.parameters():
        nn.init.zeros_(tensor)
    twin.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(outputs(twin, example)[0], expected[0])


def test_extraction_keeps_the_mode_and_which_weights_are_trained() -> None:
    model, example = build("residual")
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    supernet = Supernet(model, example)
    model.train()
    model.stem.eval()
    small = extract(supernet, supernet.space.minimum)
    assert small.training
    assert not small.stem.training
    assert [name for name, p in small.named_parameters() if p.requires_grad] == ["head.fc.weight", "head.fc.bias"]


def test_skipped_blocks_are_identities_of_the_same_mode() -> None:
    model, example = build("residual")
    supernet = Supernet(model, example)
    small = extract(supernet, supernet.space.minimum)
    assert type(small.layer1) is type(small.layer2[1]) is nn.Identity
    assert not small.layer1.training


def test_norm_statistics_may_be_recalibrated_before_the_module_becomes_a_graph() -> None:
    model, example = build("view_constant")
    supernet = Supernet(model, example)

    def shift(module: nn.Module) -> None:
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                part.running_mean.add_(1)

    plain, shifted = (extract(supernet, supernet.space.minimum, prepare) for prepare in (None, shift))
    assert isinstance(shifted, torch.fx.GraphModule)
    assert not torch.allclose(outputs(plain, example)[0], outputs(shifted, example)[0])
    for name, tensor in shifted.named_buffers():
        if name.endswith("running_mean"):
            assert torch.allclose(tensor, plain.get_buffer(name) + 1)


def test_a_subnet_of_another_space_is_refused() -> None:
    supernet = Supernet(*build("chain"))
    with pytest.raises(SubnetError, match="no value for the choice"):
        extract(supernet, {})


class Branching(nn.Module):
    """Code that torch.export cannot follow, around a number that width must change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 16, 1), nn.Linear(16 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.nn.functional.adaptive_avg_pool2d(self.conv(x), 2)
        if y.sum() > 1e9:
            y = -y
        return self.fc(y.view(-1, 64))


@pytest.mark.filterwarnings("ignore")
def test_code_that_cannot_be_exported_is_an_error_that_says_what_to_change() -> None:
    supernet = Supernet(Branching().eval(), ExampleInput((image(),)))
    with pytest.raises(ExportError, match=r"extracted by torch\.export, which failed.*Let the code compute sizes from"):
        extract(supernet, supernet.space.minimum)
    assert type(extract(supernet, supernet.space.maximum)) is Branching  # where nothing changes, no export is needed


class Masked(nn.Module):
    """A second input whose first dimension is no batch, and a block in the model's own code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 6)
        self.last = nn.Linear(6, 5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.two(self.norm(torch.relu(self.one(x))))
        return self.last(mask @ x)


def test_inputs_without_a_batch_keep_their_size() -> None:
    example = ExampleInput((torch.randn(2, 4, 6),), {"mask": torch.rand(4, 4)})
    model = Masked().eval()
    supernet = Supernet(model, example)
    small = extract(supernet, supernet.space.minimum)
    assert isinstance(small, torch.fx.GraphModule)
    for batch in (1, 2, 5):
        inputs = other_input(example, batch)
        with supernet.activate(supernet.space.minimum), torch.no_grad():
            assert_close(outputs(small, inputs), outputs(model, inputs))


class ModuleListOfViews(nn.Module):
    """Blocks that have no names of their own for NNCF, each with numbers of its width in the code."""

    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv, self.fc = conv_bn(16, channels), nn.Linear(channels * 4, 16)
            self.features = channels * 4

        def forward(self, x: Tensor) -> Tensor:
            y = torch.nn.functional.adaptive_avg_pool2d(self.conv(x), 2)
            return x * self.fc(y.view(-1, self.features)).view(-1, 16, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.blocks = nn.ModuleList([self.Block(8), self.Block(16), self.Block(24)])
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_operations_behind_a_skipped_block_keep_their_names() -> None:
    torch.manual_seed(0)
    model: Any = ModuleListOfViews().eval()
    config = ElasticityConfig(depth=DepthConfig(mode="independent"))
    supernet = Supernet(model, ExampleInput((image(),)), config)
    x = torch.randn(3, 3, 8, 8)
    rng = np.random.default_rng(0)
    for skipped in range(3):
        subnet = {**supernet.sample(rng), **{f"depth:blocks.{i}": int(i != skipped) for i in range(3)}}
        with supernet.activate(subnet), torch.no_grad():
            active = model(x)
        assert_close([extract(supernet, subnet)(x)], [active])
    kept = {**supernet.space.maximum, "depth:blocks.1": 0}
    with supernet.activate(kept), torch.no_grad():
        expected = model.head(model.blocks[2](model.blocks[0](model.stem(x))))
        assert torch.equal(model(x), expected)


def plus_one(self: Any, x: Tensor) -> Tensor:
    return type(self).forward(self, x) + 1


def test_a_forward_of_the_objects_own_is_kept() -> None:
    model, example = build("chain")
    model.forward = MethodType(plus_one, model)  # type: ignore[method-assign]
    supernet = Supernet(model, example)
    small = extract(supernet, supernet.space.minimum)
    assert small.forward.__self__ is small
    with supernet.activate(supernet.space.minimum), torch.no_grad():
        active = outputs(model, example)
        assert_close(outputs(small, example), active)
        del small.forward
        assert torch.allclose(outputs(small, example)[0] + 1, active[0])
