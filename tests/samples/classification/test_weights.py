"""Weights: every usual way to keep them is read, and what does not fit is listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bootstrapnas_ext.errors import CheckpointError, ConfigError, DataError, ModelError
from samples.classification.weights import load_torchvision_weights, load_weights


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
    ],
    ids=["plain", "state_dict", "model", "parallel"],
)
def test_usual_files(wrap: Any, tmp_path: Path) -> None:
    source, target = net(), net()
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pt")
    load_weights(target, tmp_path / "weights.pt")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_names_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = net().state_dict()
    state["1.weight"] = torch.zeros(5, 4)
    state["head.weight"] = state.pop("0.bias")
    torch.save(state, tmp_path / "weights.pt")
    message = (
        r"1 missing \(0\.bias\), 1 not in the model \(head\.weight\), "
        r"1 of another shape \(1\.weight is of shape \(5, 4\) and not \(2, 4\)\)"
    )
    with pytest.raises(ModelError, match=message):
        load_weights(net(), tmp_path / "weights.pt")


def test_long_lists_are_cut(tmp_path: Path) -> None:
    torch.save({f"x{index}": torch.zeros(1) for index in range(30)}, tmp_path / "weights.pt")
    with pytest.raises(
        ModelError,
        match=r"4 missing \(0\.weight, 0\.bias, 1\.weight and 1 more\), 30 not in the model \(x0, x1, x2 and 27 more\)",
    ):
        load_weights(net(), tmp_path / "weights.pt")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file of weights at .*weights\.pt; give its path with --weights"):
        load_weights(net(), tmp_path / "weights.pt")


def test_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"is damaged, or not a file that torch\.save wrote"):
        load_weights(net(), path)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"is damaged, or not a file that torch\.save wrote with tensors alone"):
        load_weights(net(), tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}])
def test_something_else(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="must hold a state dict, names to tensors"):
        load_weights(net(), tmp_path / "weights.pt")


class _Weights:
    """Stands for one entry of torchvision's weights."""

    def __init__(self, state: dict[str, Tensor] | OSError) -> None:
        self._state = state

    def get_state_dict(self, **_: Any) -> dict[str, Tensor]:
        if isinstance(self._state, OSError):
            raise self._state
        return self._state


def test_torchvision_weights_of_another_number_of_classes_leave_the_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    source = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1000))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: {"DEFAULT": _Weights(source.state_dict())})
    model = net()
    last = model[1].weight.clone()
    assert not load_torchvision_weights(model, "net", "DEFAULT")
    assert torch.equal(model[0].weight, source[0].weight)
    assert torch.equal(model[1].weight, last)
    assert load_torchvision_weights(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1000)), "net", "DEFAULT")


def test_torchvision_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'IMAGENET' is neither a file nor weights that torchvision has"):
        load_torchvision_weights(net(), "resnet18", "IMAGENET")
    with pytest.raises(ConfigError, match=r"'DEFAULT' is neither a file nor weights .* for 'resnet20'"):
        load_torchvision_weights(net(), "resnet20", "DEFAULT")
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: {"DEFAULT": _Weights(OSError("no network"))})
    with pytest.raises(DataError, match=r"cannot be downloaded \(no network\); give a file of weights with --weights"):
        load_torchvision_weights(net(), "resnet18", "DEFAULT")
