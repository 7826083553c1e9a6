"""Inputs and outputs of any kind, from the trace to exported files that were verified."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bootstrapnas_ext.deployment import deploy
from bootstrapnas_ext.errors import ExportError, ModelError
from bootstrapnas_ext.flow import create_compressed_model
from bootstrapnas_ext.supernet import Supernet

Pair = namedtuple("Pair", ["logits", "hidden"])


class Net(nn.Module):
    """Two layers; the hidden channels are elastic unless the model returns them."""

    def __init__(self, run: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.run = run
        self.stem, self.middle, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.middle(F.relu(self.stem(x))))

    def classify(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x))

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x)
        return self.head(hidden), hidden

    def forward(self, x: Tensor) -> Any:
        assert self.run is not None
        return self.run(self, x)


def exported(
    model: nn.Module, example: Any, folder: Path, formats: tuple[str, ...] = ("onnx", "ir")
) -> onnx.ModelProto:
    """Deploys the smallest subnet, which compares it to the super-network, and returns the ONNX model."""
    supernet = Supernet(model, example)
    assert supernet.space.minimum["width:stem"] < 16
    report = deploy(supernet, supernet.space.minimum, folder, formats).verification
    assert list(report.differences) == ["extracted", *formats]
    return onnx.load(folder / "model.onnx")


def names(ports: Any) -> list[str]:
    return [port.name for port in ports]


@pytest.mark.parametrize(
    ("run", "expected", "returns_hidden"),
    [
        (lambda net, x: net.classify(x), ["output"], False),
        (lambda net, x: net.both(x), ["output_0", "output_1"], True),
        (lambda net, x: [net.classify(x)], ["output_0"], False),
        (lambda net, x: {"logits": net.classify(x), "loss": None}, ["logits"], False),
        (lambda net, x: {"deep": [net.both(x)], "er": None}, ["deep_0_0", "deep_0_1"], True),
        (lambda net, x: Pair(*net.both(x)), ["output_logits", "output_hidden"], True),
        (lambda net, x: (net.classify(x), x), ["output_0", "output_1"], False),
    ],
    ids=["tensor", "tuple", "list", "dict", "nested", "namedtuple", "the_input"],
)
def test_outputs(run: Callable[[Any, Tensor], Any], expected: list[str], returns_hidden: bool, tmp_path: Path) -> None:
    assert names(exported(Net(run), torch.randn(2, 8), tmp_path).graph.output) == expected
    static = Supernet(Net(run), torch.randn(2, 8)).static_layers()["width"]
    assert ("middle" in static) == returns_hidden


@dataclass
class Unknown:
    logits: Tensor


@dataclass
class Known:
    logits: Tensor
    hidden: Tensor | None = None


torch.export.register_dataclass(Known)


class Holder:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (
            Unknown,
            r"of type 'Unknown', in which tensors cannot be found; register it by `torch.export.register_dataclass\(",
        ),
        (Holder, r"of type 'Holder', in which tensors cannot be found; register it by `pytree.register_pytree_node\("),
    ],
)
def test_objects_that_hide_tensors_are_refused(wrap: Callable[[Tensor], Any], message: str) -> None:
    # Beside a tensor, too: the hidden one would be cut although the model returns it.
    with pytest.raises(ModelError, match=f"What the model returns holds an object {message}"):
        Supernet(Net(lambda net, x: (net.classify(x), wrap(net.hidden(x)))), torch.randn(2, 8))
    with pytest.raises(ModelError, match=f"The example input holds an object {message}"):
        Supernet(Net(lambda net, x: net.classify(next(iter(vars(x).values())))), (wrap(torch.randn(2, 8)),))


def test_tensors_deep_in_objects_are_found_too() -> None:
    class Cache:
        """Holds layers, each of which holds a tensor, as caches of language models do."""

        def __init__(self, tensor: Tensor) -> None:
            self.layers = [Holder(tensor)]

    with pytest.raises(ModelError, match=r"What the model returns holds an object of type 'Cache'.*use_cache=False"):
        Supernet(Net(lambda net, x: (net.classify(x), Cache(net.hidden(x)))), torch.randn(2, 8))


def test_a_registered_dataclass_is_an_input_and_an_output(tmp_path: Path) -> None:
    model = Net(lambda net, x: Known(net.classify(x.logits)))
    ports = exported(model, (Known(torch.randn(2, 8)),), tmp_path).graph
    assert names(ports.input) == ["x_logits"]
    assert names(ports.output) == ["output_logits"]


def test_what_is_no_tensor_has_no_place_in_a_file(tmp_path: Path) -> None:
    supernet = Supernet(Net(lambda net, x: (net.classify(x), 3, "text")), torch.randn(2, 8))
    message = r"outputs must be tensors, but 'output_1' is of type int; wrap the model in a module that returns nothing"
    with pytest.raises(ExportError, match=message):
        deploy(supernet, supernet.space.minimum, tmp_path)


class NestedInput(Net):
    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.classify(batch["items"][0] + batch["items"][1]) * batch["scale"]


class KeywordOnly(Net):
    def forward(self, *, values: Tensor, mask: Tensor | None = None) -> Tensor:
        logits = self.classify(values)
        return logits if mask is None else logits.masked_fill(mask, 0.0)


class AnyKeyword(Net):
    def forward(self, **batch: Tensor) -> Tensor:
        return self.classify(batch["values"])


class WithNumbers(Net):
    def forward(self, x: Tensor, factor: float, negate: bool = False) -> Tensor:
        logits = self.classify(x) * factor
        return -logits if negate else logits


class Text(Net):
    """Token ids and an attention mask to logits, as text models take and give them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        mask = attention_mask[..., None].float()
        pooled = (self.hidden(self.embed(input_ids)) * mask).sum(1) / mask.sum(1)
        return {"logits": self.head(pooled)}


def text_inputs() -> dict[str, Tensor]:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    mask[0, 0] = 1
    return {"input_ids": torch.randint(0, 50, (2, 7)), "attention_mask": mask}


@pytest.mark.parametrize(
    ("make", "example", "expected"),
    [
        (
            NestedInput,
            ({"items": [torch.randn(2, 8), torch.randn(2, 8)], "scale": torch.rand(2, 1)},),
            ["batch_items_0", "batch_items_1", "batch_scale"],
        ),
        (KeywordOnly, {"values": torch.randn(2, 8), "mask": torch.ones(2, 4) > 2}, ["values", "mask"]),
        (KeywordOnly, {"values": torch.randn(2, 8)}, ["values"]),
        (AnyKeyword, {"values": torch.randn(2, 8)}, ["values"]),
        (WithNumbers, (torch.randn(2, 8), 2.0, True), ["x"]),
    ],
    ids=["nested", "keyword_only", "without_mask", "any_keyword", "numbers"],
)
def test_inputs(make: Callable[[], nn.Module], example: Any, expected: list[str], tmp_path: Path) -> None:
    assert names(exported(make(), example, tmp_path).graph.input) == expected


def test_token_ids_and_masks(tmp_path: Path) -> None:
    ports = exported(Text(), text_inputs(), tmp_path).graph.input
    assert names(ports) == ["input_ids", "attention_mask"]
    assert {port.type.tensor_type.elem_type for port in ports} == {onnx.TensorProto.INT64}


def test_a_dummy_forward_fn_may_call_the_model_with_anything(tmp_path: Path, rng: np.random.Generator) -> None:
    config = {"bootstrapNAS": {"training": {"elasticity": {"available_elasticity_dims": ["width"]}}}}
    controller, model = create_compressed_model(Text(), config, dummy_forward_fn=lambda net: net(**text_inputs()))
    subnet = controller.multi_elasticity_handler.activate_random_subnet(rng)
    assert model(**text_inputs())["logits"].shape == (2, 4)
    deployed = controller.export_model(tmp_path)
    assert deployed.module.stem.out_features == subnet["width:stem"]


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 3,
}


def bert() -> tuple[nn.Module, dict[str, Tensor]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=64, max_position_embeddings=16, **SMALL)
    inputs = {**text_inputs(), "token_type_ids": torch.zeros(2, 7, dtype=torch.long)}
    return transformers.BertForSequenceClassification(config), inputs


def vit() -> tuple[nn.Module, dict[str, Tensor]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(image_size=16, patch_size=4, **SMALL)
    return transformers.ViTForImageClassification(config), {"pixel_values": torch.randn(2, 3, 16, 16)}


@pytest.mark.parametrize("make", [bert, vit])
def test_models_of_transformers_with_their_output_objects(
    make: Callable[[], tuple[nn.Module, dict[str, Tensor]]], tmp_path: Path
) -> None:
    model, example = make()
    supernet = Supernet(model, example)
    depth = {choice.name: choice.values[0] for choice in supernet.space.choices if choice.dimension == "depth"}
    subnet = supernet.space.validate({**supernet.space.minimum, **depth})  # without its layers, BERT reads no mask
    with torch.no_grad(), supernet.activate(subnet):
        assert model(**example).logits.shape == (2, 3)
    deployed = deploy(supernet, subnet, tmp_path)
    assert list(deployed.verification.differences) == ["extracted", "onnx", "ir"]
    ports = onnx.load(tmp_path / "model.onnx").graph
    assert names(ports.input) == list(example)
    assert names(ports.output) == ["logits"]
