"""Images in three separate parts: training sees the first, the search the second, the reported figures the third."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import methodcaller
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset
from torchvision import datasets, transforms

from bootstrapnas_ext import processes
from bootstrapnas_ext.errors import DataError
from samples.classification.settings import AugmentConfig, Settings

_IN_MEMORY = 2**30
"""Bytes up to which the images of a part that is read again and again are kept in memory."""


class Images(Protocol):
    """Labelled images, as torchvision's datasets are without a transform."""

    @property
    def targets(self) -> Sequence[int]:
        """The class of each image."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Returns an image and its class."""


@dataclass(frozen=True)
class Part:
    """
    Some of the images of a source.

    :param images: The source.
    :param indices: Which of them.
    """

    images: Images
    indices: Sequence[int]


@dataclass(frozen=True)
class Split:
    """
    The three parts, with no image in common.

    :param train: For training, and for norm statistics.
    :param validation: For the accuracy that the search sees.
    :param test: For the reported accuracy.
    """

    train: Part
    validation: Part
    test: Part


class _Digits:
    """Scikit-learn's handwritten digits: 1797 images of 8x8 in ten classes."""

    def __init__(self) -> None:
        digits = load_digits()
        self.targets: list[int] = digits.target.tolist()
        self._pixels = (digits.images * (255 / 16)).astype("uint8")

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self._pixels[index]), self.targets[index]


class _Transformed(Dataset[tuple[Tensor, int]]):
    """A part as tensors of shape ``(channels, height, width)``."""

    def __init__(self, part: Part, transform: Callable[[Image.Image], Tensor]) -> None:
        self._part = part
        self._transform = transform
        self.targets = [part.images.targets[index] for index in part.indices]

    def __len__(self) -> int:
        return len(self._part.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = self._part.images[self._part.indices[index]]
        return self._transform(image), target


class Loaders:
    """
    The data loaders of a run. Of several processes, each trains on its part.

    :param settings: Of the run. The images are read when a loader is first asked for.
    :raises DataError: If the data is missing, empty or does not fit the settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._split = split(settings.dataset, Path(settings.dataset_dir))
        for name, part in vars(self._split).items():
            _check(name, part, settings)

    @cached_property
    def train(self) -> DataLoader[Any]:
        """Augmented and shuffled."""
        dataset = _Transformed(self._split.train, self._transform(self._settings.augment))
        size = self._settings.batch_size
        # Norms cannot train on a last batch of one image.
        drop_last = math.ceil(len(dataset) / processes.count()) % size == 1
        return self._loader(dataset, size, drop_last=drop_last, **self._shuffled(dataset))

    @cached_property
    def calibration(self) -> DataLoader[Any]:
        """The training images for norm statistics: shuffled, without augmentation."""
        dataset = _Transformed(self._split.train, self._transform())
        return self._loader(dataset, self._settings.batch_size, **self._shuffled(dataset))

    @cached_property
    def validation(self) -> DataLoader[Any]:
        """What the search sees."""
        return self._evaluation(self._split.validation)

    @cached_property
    def own_validation(self) -> DataLoader[Any]:
        """What of it a process measures, where all together measure it."""
        part = self._split.validation
        own = part.indices[processes.rank() :: processes.count()]
        return self.validation if processes.count() == 1 else self._evaluation(Part(part.images, own))

    @cached_property
    def test(self) -> DataLoader[Any]:
        """What nothing sees but the report."""
        return self._evaluation(self._split.test)

    def _evaluation(self, part: Part) -> DataLoader[Any]:
        dataset = _Transformed(part, self._transform())
        if 4 * math.prod(self._settings.image_shape) * len(part.indices) <= _IN_MEMORY:
            images, targets = zip(*(dataset[index] for index in range(len(dataset))), strict=True)
            return self._loader(
                TensorDataset(torch.stack(images), torch.tensor(targets)), self._settings.batch_size_val
            )
        return self._loader(dataset, self._settings.batch_size_val)

    def _shuffled(self, dataset: Dataset[Any]) -> dict[str, Any]:
        if processes.count() == 1:
            return {"shuffle": True}
        return {"sampler": DistributedSampler(dataset, seed=self._settings.seed)}

    def _loader(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> DataLoader[Any]:
        workers = 0 if isinstance(dataset, TensorDataset) else self._settings.workers
        generator = torch.Generator().manual_seed(self._settings.seed)
        return DataLoader(dataset, batch_size, num_workers=workers, generator=generator, **options)

    def _transform(self, augment: AugmentConfig | None = None) -> Callable[[Image.Image], Tensor]:
        channels, height, width = self._settings.image_shape
        to_mode = methodcaller("convert", "L" if channels == 1 else "RGB")
        steps: list[Any] = [to_mode, transforms.Resize((height, width))]
        if augment is not None and augment.crop_padding:
            steps.append(transforms.RandomCrop((height, width), augment.crop_padding))
        if augment is not None and augment.flip:
            steps.append(transforms.RandomHorizontalFlip())
        steps.append(transforms.ToTensor())
        if (normalize := self._settings.normalize) is not None:
            steps.append(transforms.Normalize(normalize.mean, normalize.std))
        return transforms.Compose(steps)


def split(dataset: str, folder: Path) -> Split:
    """
    Returns the three parts of a dataset, always the same ones.

    Of data that comes in two parts, all of the training part trains, because given weights may have seen all of it; the
    first half of each class of its test part is for validation, the second for test.

    :param dataset: ``digits``, ``cifar10``, ``cifar100`` or ``folder``.
    :param folder: Where the data is or goes; unused by ``digits``. A folder of images holds ``train/<class>/...``,
        ``test/<class>/...`` and perhaps ``val/<class>/...``. CIFAR as such a folder is read too.
    :raises DataError: If the data is missing, damaged or empty.
    """
    if dataset == "digits":
        digits = _Digits()
        ranks = _ranks(digits.targets)
        train, validation, test = (
            [i for i, rank in enumerate(ranks) if rank % 10 in of] for of in ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9))
        )
        return Split(Part(digits, train), Part(digits, validation), Part(digits, test))
    if dataset == "folder" or (folder / "train").is_dir():
        return _split_folder(folder)
    train_images, test_images = (_cifar(dataset, folder, train) for train in (True, False))
    return Split(_whole(train_images), *_halves(test_images))


def _split_folder(folder: Path) -> Split:
    train = _image_folder(folder / "train")
    test = _image_folder(folder / "test", train.classes)
    if (folder / "val").is_dir():
        return Split(_whole(train), _whole(_image_folder(folder / "val", train.classes)), _whole(test))
    return Split(_whole(train), *_halves(test))


def _image_folder(folder: Path, classes: Sequence[str] | None = None) -> datasets.ImageFolder:
    try:
        images = datasets.ImageFolder(str(folder), loader=_read_image)
    except OSError as error:
        msg = (
            f"{folder} holds no images to read: {error}. A folder of images has train/<class>/..., test/<class>/... "
            "and perhaps val/<class>/...; give it with --data."
        )
        raise DataError(msg) from error
    if classes not in (None, images.classes):
        wrong = sorted(set(classes or ()) ^ set(images.classes))[0]
        train = folder.parent / "train"
        msg = f"All parts must have the same classes, but only one of {folder} and {train} has {wrong!r}."
        raise DataError(msg)
    return images


def _read_image(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except OSError as error:  # Pillow's own errors are of this kind too
        msg = f"{path} cannot be read as an image ({error}); remove it or put a whole one there."
        raise DataError(msg) from error


def _cifar(dataset: str, folder: Path, train: bool) -> Images:
    kind = datasets.CIFAR10 if dataset == "cifar10" else datasets.CIFAR100
    try:
        return kind(str(folder), train=train, download=True)
    except (OSError, RuntimeError) as error:
        msg = (
            f"{dataset} is not in {folder} and cannot be downloaded there ({error}). Give its folder with --data; it "
            "may also hold the images as train/<class>/... and test/<class>/..."
        )
        raise DataError(msg) from error


def _whole(images: Images) -> Part:
    return Part(images, range(len(images.targets)))


def _halves(images: Images) -> tuple[Part, Part]:
    """Returns the first and the second half of each class."""
    counts, ranks = Counter(images.targets), _ranks(images.targets)
    first = [2 * rank < counts[target] for rank, target in zip(ranks, images.targets, strict=True)]
    return (
        Part(images, [index for index, is_first in enumerate(first) if is_first]),
        Part(images, [index for index, is_first in enumerate(first) if not is_first]),
    )


def _ranks(targets: Sequence[int]) -> list[int]:
    """Returns for each image how many of its class come before it."""
    counts: Counter[int] = Counter()
    ranks = []
    for target in targets:
        ranks.append(counts[target])
        counts[target] += 1
    return ranks


def _check(name: str, part: Part, settings: Settings) -> None:
    if not part.indices:
        msg = f"The {name} part of {settings.dataset} ({settings.dataset_dir}) is empty; add images of each class."
        raise DataError(msg)
    classes = max(part.images.targets) + 1
    if classes > settings.num_classes:
        msg = (
            f"$.num_classes must be at least {classes}, the number of classes of {settings.dataset}, but got "
            f"{settings.num_classes}."
        )
        raise DataError(msg)
