"""Datasets: three parts without a common image, read as the config says, from every source."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import datasets

from bootstrapnas_ext.config import InputInfo
from bootstrapnas_ext.config.keys import NASBlock
from bootstrapnas_ext.errors import DataError
from samples.classification.datasets import Loaders, Part, split
from samples.classification.settings import AugmentConfig, NormalizeConfig, Settings


def settings(dataset: str = "digits", folder: Path | str = "data", size: int = 8, **changes: Any) -> Settings:
    values: dict[str, Any] = {"model": "resnet20", "num_classes": 10, "batch_size_val": 100, "batch_size": 64}
    values |= {"input_info": InputInfo((1, changes.pop("channels", 3), size, size)), "bootstrapNAS": NASBlock()}
    return Settings(dataset=dataset, dataset_dir=str(folder), **(values | changes))


def write_images(folder: Path, classes: dict[str, int], shade: int = 0) -> None:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (6, 4), (shade + index, 0, 0)).save(folder / name / f"{index:04}.png")


def shades(part: Part) -> list[int]:
    return [part.images[index][0].getpixel((0, 0))[0] for index in part.indices]


def test_digits_have_three_separate_parts_with_all_classes() -> None:
    parts = split("digits", Path("nowhere"))
    train, validation, test = (set(part.indices) for part in (parts.train, parts.validation, parts.test))
    assert len(train) + len(validation) + len(test) == len(train | validation | test) == 1797
    for part in (parts.train, parts.validation, parts.test):
        assert min(Counter(part.images.targets[index] for index in part.indices).values()) > 50


def test_folder_with_three_parts(tmp_path: Path) -> None:
    for shade, name in enumerate(("train", "val", "test")):
        write_images(tmp_path / name, {"cat": 2, "dog": 1}, shade=50 * shade)
    parts = split("folder", tmp_path)
    assert shades(parts.train) == [0, 1, 0]
    assert shades(parts.validation) == [50, 51, 50]
    assert shades(parts.test) == [100, 101, 100]


@pytest.mark.parametrize("dataset", ["folder", "cifar10", "cifar100"])
def test_test_folder_is_halved_class_by_class(dataset: str, tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 3, "dog": 3})
    write_images(tmp_path / "test", {"cat": 4, "dog": 2}, shade=100)
    parts = split(dataset, tmp_path)
    assert shades(parts.train) == [0, 1, 2, 0, 1, 2]
    assert shades(parts.validation) == [100, 101, 100]
    assert shades(parts.test) == [102, 103, 101]


def test_cifar_from_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    class Cifar:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            calls.append((root, train, download))
            self.targets = [0, 1] * (4 if train else 2)

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.new("RGB", (32, 32)), self.targets[index]

    monkeypatch.setattr(datasets, "CIFAR100", Cifar)
    parts = split("cifar100", tmp_path)
    assert calls == [(str(tmp_path), True, True), (str(tmp_path), False, True)]
    assert [list(part.indices) for part in (parts.train, parts.validation, parts.test)] == [[*range(8)], [0, 1], [2, 3]]


def test_cifar_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    with pytest.raises(DataError, match=r"cifar10 is not in .* cannot be downloaded there \(no network\)\. Give"):
        split("cifar10", tmp_path)


def test_only_training_images_are_augmented() -> None:
    loaders = Loaders(settings(augment=AugmentConfig(crop_padding=2, flip=True)))
    train, calibration = loaders.train.dataset, loaders.calibration.dataset
    assert len(train) == len(calibration)
    assert any(not torch.equal(train[0][0], calibration[0][0]) for _ in range(9))
    assert torch.equal(calibration[0][0], calibration[0][0])


def test_images_are_made_to_fit() -> None:
    image = Loaders(settings(size=16)).calibration.dataset[0][0]
    assert image.shape == (3, 16, 16)
    assert 0 <= image.min() < image.max() <= 1
    grey = Loaders(settings(channels=1, normalize=NormalizeConfig((0.5,), (0.25,)))).calibration.dataset[0][0]
    assert grey.shape == (1, 8, 8)
    plain = Loaders(settings(channels=1)).calibration.dataset[0][0]
    assert torch.allclose(grey, (plain - 0.5) / 0.25)


def test_colours_become_grey_where_the_model_has_one_channel(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_images(tmp_path / name, {"cat": 2})
    assert Loaders(settings("folder", tmp_path, channels=1)).calibration.dataset[0][0].shape == (1, 8, 8)


def test_validation_in_memory_or_not_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Loaders(settings()).validation
    monkeypatch.setattr("samples.classification.datasets._IN_MEMORY", 0)
    read = Loaders(settings()).validation
    assert type(held.dataset) is not type(read.dataset)
    for (images, targets), (again, again_targets) in zip(held, read, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(targets, again_targets)


def test_a_last_batch_of_one_is_left_out_of_training() -> None:
    size = len(Loaders(settings()).train.dataset) - 1
    assert len(Loaders(settings(batch_size=size)).train) == 1
    assert len(Loaders(settings(batch_size=size)).calibration) == 2
    assert len(Loaders(settings(batch_size=size - 1)).train) == 2


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train holds no images to read: .* give it with --data"):
        split("folder", tmp_path / "nothing")


def test_class_without_images(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 2, "dog": 0})
    with pytest.raises(DataError, match=r"holds no images to read: .*dog"):
        split("folder", tmp_path)


def test_parts_with_other_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 2, "dog": 2})
    write_images(tmp_path / "test", {"cat": 2})
    with pytest.raises(DataError, match=r"must have the same classes, but only one of .*test and .*train has 'dog'"):
        split("folder", tmp_path)


def test_damaged_image(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write_images(tmp_path / name, {"cat": 1})
    (tmp_path / "val" / "cat" / "0000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0000\.png cannot be read as an image"):
        _ = Loaders(settings("folder", tmp_path)).validation


def test_too_few_images_for_a_part(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 1})
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    with pytest.raises(DataError, match=r"The test part of folder .* is empty; add images"):
        Loaders(settings("folder", tmp_path))


def test_more_classes_than_outputs() -> None:
    with pytest.raises(DataError, match=r"\$\.num_classes must be at least 10, .* but got 3"):
        Loaders(settings(num_classes=3))
