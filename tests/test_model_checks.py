"""Models of every odd kind: each works from the trace to the exported files, or is one clear error."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from bootstrapnas_ext.deployment import deploy
from bootstrapnas_ext.errors import ExportError, ModelError
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.flow import create_compressed_model
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.model_checks import check_model
from bootstrapnas_ext.supernet import Supernet
from tests.zoo import assert_close, outputs


class Net(nn.Module):
    """Two convolutions, of which the first may be used twice, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.conv(self.stem(x))

    def classify(self, x: Tensor) -> Tensor:
        return self.head(F.relu(x).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


def image(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 8)


def smallest_is_right(model: nn.Module, example: Any, tolerance: float = 1e-5) -> Supernet:
    """Builds a super-network and compares its smallest subnet to what is extracted."""
    supernet = Supernet(model, example)
    example = supernet.example
    small = extract(supernet, supernet.space.minimum).eval()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    model.eval()
    with torch.no_grad(), supernet.activate(supernet.space.minimum):
        assert_close(outputs(small, example), outputs(model, example), tolerance)
    return supernet


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(16, 3, padding=1)


def partly(change: Callable[[Net], Any]) -> nn.Module:
    net = Net()
    change(net)
    return net


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but in use
        return torch.jit.script(Net())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: image, r"`model` must be an nn.Module, but got function\."),
        (lambda: Net().to("meta"), r"'stem.0.weight' of the model is on the `meta` device and has no values; load"),
        (lambda: partly(lambda net: net.head.to("meta")), "'head.weight' of the model is on the `meta` device"),
        (Lazy, "'conv.weight' of the model has no shape yet; run the model once"),
        (scripted, "compiled by TorchScript, which hides its operations; give the module that it was made from"),
        (lambda: torch.compile(Net(), backend="eager"), r"The model is compiled by torch\.compile, .* before it is"),
        (lambda: partly(lambda net: net.stem.compile(backend="eager")), "The part 'stem' of the model is compiled by"),
        (lambda: nn.DataParallel(Net()), "wrapped in DataParallel; make the super-network from its `.module`"),
    ],
    ids=["function", "meta", "partly_meta", "lazy", "scripted", "compiled", "partly_compiled", "data_parallel"],
)
@pytest.mark.parametrize("flow", [False, True], ids=["supernet", "flow"])
def test_what_cannot_be_a_super_network(make: Callable[[], Any], message: str, flow: bool) -> None:
    config = {"input_info": {"sample_size": [2, 3, 8, 8]}, "bootstrapNAS": {}}
    with pytest.raises(ModelError, match=message):
        create_compressed_model(make(), config) if flow else Supernet(make(), image())


def test_lazy_modules_that_ran_are_fine() -> None:
    model = Lazy()
    model(image())
    smallest_is_right(model, image())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_numbers_of_any_type(dtype: torch.dtype) -> None:
    supernet = smallest_is_right(Net().to(dtype), image().to(dtype), 1e-2)
    assert supernet.space.minimum["width:conv"] < 16


def test_numbers_of_several_types() -> None:
    class Mixed(Net):
        def __init__(self) -> None:
            super().__init__()
            self.head.double()

        def classify(self, x: Tensor) -> Tensor:
            return super().classify(x.double())

    smallest_is_right(Mixed(), image())


def test_complex_numbers(tmp_path: Path) -> None:
    layers = nn.Linear(8, 16, dtype=torch.complex64), nn.Linear(16, 4, dtype=torch.complex64)
    supernet = smallest_is_right(nn.Sequential(*layers), torch.randn(2, 8, dtype=torch.complex64))
    report = deploy(supernet, supernet.space.minimum, tmp_path, ["torch"]).verification
    assert 0 <= report.differences["torch"].max_relative < 1e-4
    with pytest.raises(ExportError, match="Sequential cannot be exported to ONNX: ScalarType ComplexFloat"):
        deploy(supernet, supernet.space.minimum, tmp_path / "onnx", ["onnx"])


def test_the_mode_and_frozen_parameters_stay() -> None:
    model = Net().train().requires_grad_(False)
    model.stem.eval()
    supernet = Supernet(model, image())
    small = extract(supernet, supernet.space.minimum)
    assert model.training
    assert not model.stem.training
    assert small.training
    assert not any(parameter.requires_grad for parameter in (*small.parameters(), *model.stem.parameters()))


def test_a_module_that_is_called_twice_is_cut_once() -> None:
    class Twice(Net):
        def features(self, x: Tensor) -> Tensor:
            return self.conv(F.relu(self.conv(self.stem(x))))

    supernet = smallest_is_right(Twice(), image())
    assert "width:conv" in supernet.space.minimum or "width:stem.0" in supernet.space.minimum


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (torch.linalg.matrix_exp, r"no axis rule for the operation 'linalg_matrix_exp' \(/linalg_matrix_exp/0\)"),
        (lambda x: torch.linalg.qr(x).Q, r"no axis rule for the operation 'linalg_qr'"),
    ],
)
def test_an_operation_without_a_rule_keeps_its_channels(function: Callable[[Tensor], Tensor], reason: str) -> None:
    class Odd(Net):
        def features(self, x: Tensor) -> Tensor:
            return function(super().features(x))

    static = smallest_is_right(Odd(), image()).static_layers()["width"]
    assert static["conv"].startswith(reason.replace("\\", ""))
    assert "stem.0" not in static


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_cut(kind: Any, tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(8, 16)
            self.recurrent = kind(16, 16, batch_first=True)
            self.hidden = nn.Linear(16, 32)
            self.head = nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            steps, _ = self.recurrent(F.relu(self.embed(x)))
            return self.head(F.relu(self.hidden(steps[:, -1])))

    supernet = smallest_is_right(Recurrent(), torch.randn(2, 5, 8))
    assert {choice.name for choice in supernet.space.choices} >= {"width:embed", "width:recurrent"}
    assert supernet.space.minimum["width:hidden"] < 32


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_normalized_weights_are_cut_with_their_norms(old: bool, dim: int | None) -> None:
    model = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, but in use
        (nn.utils.weight_norm if old else parametrizations.weight_norm)(model.conv, dim=dim)
    model(image())  # leaves tensors with gradients
    supernet = smallest_is_right(model, image())
    assert supernet.space.minimum["width:conv"] < 16
    assert supernet.static_layers()["kernel"]["conv"] == "its weight is computed from others"
    before = outputs(model, supernet.example)
    supernet.reorganize()
    assert_close(outputs(model, supernet.example), before, 1e-5)


@pytest.mark.parametrize("old", [False, True])
def test_weights_that_are_computed_by_iteration_are_cut(old: bool) -> None:
    model = Net()
    (nn.utils.spectral_norm if old else parametrizations.spectral_norm)(model.conv)
    model(image())
    supernet = smallest_is_right(model, image())
    assert {"width:conv", "width:stem.0"} <= supernet.space.minimum.keys()


@pytest.mark.parametrize("through_flow", [False, True])
def test_pruned_weights_are_cut_with_their_mask(through_flow: bool) -> None:
    model = Net()
    prune.l1_unstructured(model.conv, "weight", 0.5)
    model(image())  # the weight is a tensor with gradients now, which `copy.deepcopy` refuses
    with pytest.raises(RuntimeError, match="deepcopy protocol"):
        copy.deepcopy(model)
    if not through_flow:
        smallest_is_right(model, image())
        return
    config = {"input_info": {"sample_size": [2, 3, 8, 8]}, "bootstrapNAS": {}}
    controller, _ = create_compressed_model(model, config)
    with torch.no_grad():
        expected = controller.input_model.eval()(image())
    assert expected.isfinite().all()


def test_random_outputs_are_an_error() -> None:
    class Noisy(Net):
        def classify(self, x: Tensor) -> Tensor:
            return super().classify(F.dropout(x))  # without `self.training`

    with pytest.raises(
        ModelError, match=r"gives other outputs for the same input in eval mode, .* remove what is random"
    ):
        Supernet(Noisy(), image())


def test_a_model_that_fails_is_an_error_with_its_own_words() -> None:
    class Failing(Net):
        def features(self, x: Tensor) -> Tensor:
            raise LookupError("the dog ate it\nand more")

    with pytest.raises(
        ModelError, match=r"Failing could not be traced with this input: LookupError: the dog ate it\. Check"
    ):
        Supernet(Failing(), image())


def test_an_input_without_anything() -> None:
    with pytest.raises(
        ModelError, match="could not be traced with this input: TypeError: missing a required argument: 'x'"
    ):
        Supernet(Net(), {})


def test_a_model_of_another_tool_is_not_touched() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but in use
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)))
    with pytest.raises(ModelError, match=r"No layer with a weight, .* the weights of a quantized model are none"):
        Supernet(model, torch.randn(2, 8))
    check_model(model)


def test_parameters_in_a_tuple_are_traced() -> None:
    class ManyBiases(nn.Module):
        """The biases of three projections as one, as in some attention layers."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(8, 16)
            self.weight = nn.Parameter(torch.randn(12, 16))
            self.one, self.two = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
            self.register_buffer("three", torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.relu(self.embed(x)), self.weight, torch.cat((self.one, self.three, self.two)))

    supernet = smallest_is_right(ManyBiases(), torch.randn(2, 8))
    assert list(supernet.space.minimum) == ["width:embed"]


def test_sparse_inputs_stay_as_they_are() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, adjacency: Tensor, x: Tensor) -> Tensor:
            return self.two(F.relu(self.one(torch.sparse.mm(adjacency, x))))

    adjacency = torch.eye(4).to_sparse()
    example = ExampleInput((adjacency, torch.randn(4, 8)))
    assert example.with_batch(7).args[0] is adjacency
    smallest_is_right(Graph(), example)
