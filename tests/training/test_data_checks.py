"""What is refused about training data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from bootstrapnas_ext.errors import DataError, ModelError, TrainingError
from bootstrapnas_ext.inputs import ExampleInput
from bootstrapnas_ext.training.data_checks import (
    check_labels,
    check_parameters,
    count_classes,
    count_steps,
    split_batch,
    stored_labels,
)
from tests.training.fake_supernet import CLASSES, TinyNet, make_data

IMAGES, LABELS = make_data(10)
DATA = TensorDataset(IMAGES, LABELS)
SAMPLE = ExampleInput((IMAGES[:1],))


def test_batch_is_a_pair_of_inputs_and_targets() -> None:
    for inputs in (IMAGES, (IMAGES,), {"x": IMAGES}):
        example, targets = split_batch([inputs, LABELS])
        assert example.tensors() == [IMAGES]
        assert targets is LABELS


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ([IMAGES], r"list of \['Tensor'\]"),
        ((IMAGES, "cat"), r"tuple of \['Tensor', 'str'\]"),
        ({"image": IMAGES}, "dict"),
        (IMAGES, "Tensor"),
    ],
)
def test_other_batches_are_refused(batch: Any, found: str) -> None:
    with pytest.raises(
        DataError, match=rf"must be a pair \(inputs, targets\) with a tensor of targets, but got {found}"
    ):
        split_batch(batch)


def test_steps_are_batches() -> None:
    assert count_steps(DataLoader(DATA, batch_size=4)) == 3


def test_fewer_samples_than_a_batch_is_refused() -> None:
    with pytest.raises(DataError, match=r"no batch: the dataset has 10 samples \(batch_size=16, drop_last=True\)"):
        count_steps(DataLoader(DATA, batch_size=16, drop_last=True))


def test_loader_without_length_is_refused() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(DataError, match="must have a length"):
        count_steps(DataLoader(Stream()))


def test_classes_are_the_outputs_of_the_model_and_counting_leaves_it_as_it_was() -> None:
    model = TinyNet().train()
    before = model.norm.running_mean.clone()
    assert count_classes(model, SAMPLE, LABELS) == CLASSES
    assert model.training
    assert torch.equal(model.norm.running_mean, before)


def test_targets_that_are_no_labels_have_no_classes() -> None:
    assert count_classes(TinyNet(), SAMPLE, torch.rand(10, CLASSES)) is None
    counts = torch.zeros(10, CLASSES, dtype=torch.int64)
    assert count_classes(nn.Flatten(), SAMPLE, counts) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_labels_of_another_type_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(DataError, match=rf"labels that are integers, but got {dtype}; convert them"):
        count_classes(TinyNet(), SAMPLE, LABELS.to(dtype))


def test_labels_of_pixels_have_the_classes_of_dimension_1() -> None:
    assert count_classes(nn.Conv2d(CLASSES, 7, 1), SAMPLE, torch.zeros(10, 6, 6, dtype=torch.int64)) == 7


def test_outputs_that_cross_entropy_cannot_read_are_refused() -> None:
    class Tokens(nn.Module):
        """Classes are the last dimension of what it returns."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), 8, 5)

    class Answers(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": x}

    with pytest.raises(ModelError, match=r"got \(batch, 8, 5\) for \(batch, 8\); wrap .* or pass a `criterion`"):
        count_classes(Tokens(), SAMPLE, torch.zeros(10, 8, dtype=torch.int64))
    with pytest.raises(ModelError, match=r"returns dict; wrap .* or pass a `criterion` .*`model_eval_fn`"):
        count_classes(Answers(), SAMPLE, LABELS)


@pytest.mark.parametrize("wrong", [-1, CLASSES, 255])
def test_label_out_of_range_is_refused(wrong: int) -> None:
    labels = torch.tensor([0, wrong, 1])
    with pytest.raises(DataError, match=rf"`0 <= label < 3` must hold, .* has label={wrong}"):
        check_labels(labels, CLASSES, ignored=-100)


def test_ignored_label_is_in_range() -> None:
    check_labels(torch.tensor([[0, 255], [2, 1]]), CLASSES, ignored=255)


def loader_of(dataset: Any, sampler: Any = None) -> Any:
    return SimpleNamespace(dataset=dataset, sampler=sampler or RandomSampler([0]))


def test_labels_that_a_dataset_stores_are_found() -> None:
    torchvision_like = SimpleNamespace(targets=[0, 2, 1], target_transform=None)
    for dataset in (DATA, Subset(Subset(DATA, range(9)), [3, 1])):
        assert stored_labels(loader_of(dataset)) is not None
    assert torch.equal(stored_labels(DataLoader(Subset(DATA, [3, 1]))), LABELS[[3, 1]])
    assert torch.equal(stored_labels(loader_of(torchvision_like)), torch.tensor([0, 2, 1]))


def test_labels_that_would_need_the_samples_are_not() -> None:
    transformed = SimpleNamespace(targets=[0, 2, 1], target_transform=abs)
    others = [SimpleNamespace(targets=targets) for targets in ([{"boxes": 1}], ["cat"], [[1], [1, 2]])]
    for dataset in (transformed, *others, [(IMAGES, 0)], Subset([(IMAGES, 0)], [0]), TensorDataset(IMAGES), None):
        assert stored_labels(loader_of(dataset)) is None


def test_labels_that_a_sampler_may_leave_out_are_not() -> None:
    assert stored_labels(loader_of(DATA, SubsetRandomSampler([1]))) is None
    assert stored_labels([(IMAGES, LABELS)]) is None


def test_an_optimizer_must_have_all_that_is_trained() -> None:
    model = TinyNet()
    check_parameters(torch.optim.SGD(model.parameters(), lr=0.1), model)
    some = torch.optim.SGD([*model.blocks.parameters(), *model.norm.parameters(), *model.head.parameters()], lr=0.1)
    with pytest.raises(TrainingError, match=r"all 9 parameters .* lacks 1, the first of which is 'stem\.weight'"):
        check_parameters(some, model)
    model.stem.requires_grad_(False)
    check_parameters(some, model)
