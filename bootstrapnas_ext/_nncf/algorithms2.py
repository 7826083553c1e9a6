"""NNCF 2's own way to compression algorithms: its registry, its config, and the types that it asks for.

Only imported where NNCF 2 is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nncf.api.compression import CompressionStage
from nncf.common.statistics import NNCFStatistics
from nncf.config import schema
from nncf.torch import composite_compression, model_creation
from nncf.torch.algo_selector import PT_COMPRESSION_ALGORITHMS
from nncf.torch.compression_method_api import (
    PTCompressionAlgorithmBuilder,
    PTCompressionAlgorithmController,
    PTCompressionLoss,
)
from nncf.torch.graph.transformations.layout import PTTransformationLayout

__all__ = [
    "CompressionStage",
    "NNCFStatistics",
    "PTCompressionAlgorithmController",
    "builder_of",
    "loss_of",
    "register",
]

Build = Callable[[Any, Any], PTCompressionAlgorithmController]
"""From the model that NNCF has made and the config to a controller."""


class _Loss(PTCompressionLoss):
    """A function of NNCF's type."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self._function = function

    def calculate(self, *args: Any) -> torch.Tensor:
        return self._function(*args)

    def forward(self, *args: Any) -> torch.Tensor:
        return self.calculate(*args)


def loss_of(function: Callable[..., torch.Tensor]) -> PTCompressionLoss:
    """
    Returns a function as NNCF's type of a loss, which has no state.

    :param function: Returns the loss.
    """
    return _Loss(function)


def builder_of(build: Build) -> type[PTCompressionAlgorithmBuilder]:
    """
    Returns NNCF's type of a builder for an algorithm that needs none of NNCF's graph and hooks.

    :param build: Called when the model has all that the other algorithms of the config add to it.
    """

    class Builder(PTCompressionAlgorithmBuilder):
        """Leaves everything to a function."""

        def _get_algo_specific_config_section(self) -> dict[str, Any]:
            return {}  # what NNCF would read there are scopes in its own names

        def get_transformation_layout(self, model: Any) -> PTTransformationLayout:
            return PTTransformationLayout()

        def initialize(self, model: Any) -> None:
            """Has nothing to do."""

        def _build_controller(self, model: Any) -> PTCompressionAlgorithmController:
            return build(model, self.config)

    return Builder


def register(name: str, builder: type[PTCompressionAlgorithmBuilder]) -> None:
    """
    Makes an algorithm known to NNCF, by its name in the block ``compression`` and by a block of that name.

    :param name: The name.
    :param builder: Its builder, which must check the block in a config: NNCF's messages do not say what is wrong where.
    """
    PT_COMPRESSION_ALGORITHMS.register(name)(builder)
    schema.REF_VS_ALGO_SCHEMA[name] = {
        "type": "object",
        "properties": {"algorithm": {"const": name}},
        "required": ["algorithm"],
    }
    # NNCF reads names of algorithms from one block only, and there is no registration for others.
    for module in (model_creation, composite_compression):
        module.extract_algorithm_names = _names_with_block(name, module.extract_algorithm_names)


def _names_with_block(name: str, names: Callable[[Any], list[str]]) -> Callable[[Any], list[str]]:
    def with_block(config: Any) -> list[str]:
        found = names(config)
        return [*found, name] if name in config and name not in found else found

    return with_block
