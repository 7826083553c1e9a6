"""A trained super-network for searches of one's own, by NNCF 2's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bootstrapnas_ext.compat.nncf2.checkpoints import read_checkpoint
from bootstrapnas_ext.compat.nncf2.controllers import ElasticityController
from bootstrapnas_ext.compat.nncf2.creation import create_nncf_network, load_state, resume_compression_from_state
from bootstrapnas_ext.compat.nncf2.dimensions import ElasticityDim
from bootstrapnas_ext.compat.nncf2.handler import SubnetConfig
from bootstrapnas_ext.config import NNCFConfig


class TrainedSuperNet:
    """
    A trained super-network.

    :param elastic_ctrl: Its controller.
    :param nncf_network: Its model.
    """

    def __init__(self, elastic_ctrl: ElasticityController, nncf_network: nn.Module) -> None:
        self._elasticity_ctrl = elastic_ctrl
        self._handler = elastic_ctrl.multi_elasticity_handler
        self._model = nncf_network

    @classmethod
    def from_checkpoint(
        cls,
        model: nn.Module,
        nncf_config: NNCFConfig,
        supernet_elasticity_path: str | Path,
        supernet_weights_path: str | Path,
    ) -> TrainedSuperNet:
        """
        Returns a super-network from the files that a training wrote, with its maximum active.

        :param model: The model that it was made from; changed in place.
        :param nncf_config: Its ``input_info`` says what the model takes.
        :param supernet_elasticity_path: The ``last_elasticity.pth``.
        :param supernet_weights_path: The ``last_model_weights.pth``.
        :raises CheckpointError: If a file is missing, damaged, NNCF 2's, or another model's.
        """
        network = create_nncf_network(model, nncf_config)
        state = read_checkpoint(Path(supernet_elasticity_path))
        weights = read_checkpoint(Path(supernet_weights_path))
        network, controller = resume_compression_from_state(network, state, nncf_config)
        load_state(network, weights, is_resume=True)
        controller.multi_elasticity_handler.activate_maximum_subnet()
        return cls(controller, network)

    def get_search_space(self) -> dict[str, Any]:
        """Returns the values of all variables by the name of the dimension."""
        return self._handler.get_search_space()

    def get_design_vars_info(self) -> tuple[int, list[int]]:
        """Returns the number of variables of a search, and the largest index of each one's values."""
        return self._handler.get_design_vars_info()

    def eval_subnet_with_design_vars(
        self, design_config: Sequence[int], eval_fn: Callable[..., Any], **kwargs: Any
    ) -> Any:
        """
        Activates a subnet and returns what a function finds for it.

        :param design_config: The index of a value for each variable.
        :param eval_fn: Called with the model.
        :param kwargs: For the function.
        """
        return self.eval_subnet(self.get_config_from_pymoo(design_config), eval_fn, **kwargs)

    def eval_active_subnet(self, eval_fn: Callable[..., Any], **kwargs: Any) -> Any:
        """
        Returns what a function finds for the active subnet.

        :param eval_fn: Called with the model.
        :param kwargs: For the function.
        """
        return eval_fn(self._model, **kwargs)

    def eval_subnet(self, config: Mapping[ElasticityDim, Any], eval_fn: Callable[..., Any], **kwargs: Any) -> Any:
        """
        Activates a subnet and returns what a function finds for it.

        :param config: The subnet.
        :param eval_fn: Called with the model.
        :param kwargs: For the function.
        """
        self.activate_config(config)
        return self.eval_active_subnet(eval_fn, **kwargs)

    def activate_config(self, config: Mapping[ElasticityDim, Any]) -> None:
        """
        Makes the model run a subnet.

        :param config: The subnet.
        """
        self._handler.activate_subnet_for_config(config)

    def activate_maximal_subnet(self) -> None:
        """Makes the model run the largest subnet."""
        self._handler.activate_maximum_subnet()

    def activate_minimal_subnet(self) -> None:
        """Makes the model run the smallest subnet."""
        self._handler.activate_minimum_subnet()

    def get_active_config(self) -> SubnetConfig:
        """Returns the subnet that the model runs now."""
        return self._handler.get_active_config()

    def get_macs_for_active_config(self) -> float:
        """Returns the multiply-accumulates of the active subnet, in millions."""
        return self._handler.count_flops_and_weights_for_active_subnet()[0] / 2e6

    def export_active_subnet_to_onnx(self, filename: str = "subnet") -> None:
        """
        Writes the active subnet as ONNX.

        :param filename: The file without ``.onnx``.
        """
        self._elasticity_ctrl.export_model(f"{filename}.onnx")

    def get_config_from_pymoo(self, pymoo_config: Sequence[int]) -> SubnetConfig:
        """
        Returns the subnet that a search algorithm proposes.

        :param pymoo_config: The index of a value for each variable.
        """
        return self._handler.get_config_from_pymoo(pymoo_config)

    def get_active_subnet(self) -> nn.Module:
        """Returns the model, which runs the active subnet."""
        return self._model
