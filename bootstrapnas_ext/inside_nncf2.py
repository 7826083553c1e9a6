"""The algorithm inside NNCF 2's own ``create_compressed_model``, next to NNCF's other algorithms.

Imported with the package where NNCF 2 is installed, so that NNCF knows the algorithm:

.. code-block:: python

    import bootstrapnas_ext
    import nncf.torch

    config = nncf.NNCFConfig.from_dict({"input_info": {...}, "compression": {"algorithm": "bootstrapNAS"}})
    controller, model = nncf.torch.create_compressed_model(model, config)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bootstrapnas_ext import _nncf
from bootstrapnas_ext._nncf import algorithms2
from bootstrapnas_ext._nncf.network import dummy_forward, example_arguments
from bootstrapnas_ext.config import BootstrapNASConfig, NNCFConfig
from bootstrapnas_ext.config.block import BOOTSTRAP_NAS
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.example import from_forward
from bootstrapnas_ext.extraction import extract
from bootstrapnas_ext.flow import BootstrapNASController, make_controller
from bootstrapnas_ext.inputs import ExampleInput


class NNCFController(BootstrapNASController, algorithms2.PTCompressionAlgorithmController):
    """The package's controller, with what NNCF 2 asks of the controllers of its algorithms."""

    def __init__(self, *args: Any) -> None:
        BootstrapNASController.__init__(self, *args)
        self._model = self.model
        self._name: str | None = None
        self._builder_state: dict[str, Any] | None = None
        self._nncf_loss = algorithms2.loss_of(self._loss)

    @property
    def loss(self) -> Any:
        """As that of the base class, of NNCF's type, so that it can be one of several."""
        return self._nncf_loss

    def get_state(self) -> dict[str, dict[str, Any]]:
        """Returns the algorithm's part of NNCF's state: structure, active subnet and position in training."""
        return {self.name: BootstrapNASController.get_compression_state(self)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """
        Restores the algorithm's part of a state.

        :param state: What :meth:`get_state` returned, also among those of other algorithms.
        :raises CheckpointError: If it is that of another super-network.
        """
        if self.name in state:
            BootstrapNASController.load_compression_state(self, state[self.name])

    def get_compression_state(self) -> dict[str, Any]:
        """Returns what NNCF's ``create_compressed_model(compression_state=...)`` needs to make the same again."""
        state: dict[str, Any] = algorithms2.PTCompressionAlgorithmController.get_compression_state(self)
        return state

    def load_compression_state(self, state: Mapping[str, Any]) -> None:
        """
        Restores what :meth:`get_compression_state` returned.

        :param state: The state of a super-network of the same model and config.
        :raises CheckpointError: If it is another's.
        """
        self.load_state(state[self.CONTROLLER_STATE])

    def compression_stage(self) -> Any:
        """Returns whether training is in its last stage, whichever subnet is active."""
        stage = algorithms2.CompressionStage
        is_last = self.scheduler.current_epoch >= self.scheduler.stages[-1].first_epoch
        return stage.FULLY_COMPRESSED if is_last else stage.PARTIALLY_COMPRESSED

    def statistics(self, quickly_collected_only: bool = False) -> Any:
        """
        Returns no statistics; ``supernet.cost`` tells what the active subnet costs.

        :param quickly_collected_only: Makes no difference.
        """
        return algorithms2.NNCFStatistics()

    def strip(self, do_copy: bool = True, strip_format: Any = None) -> nn.Module:
        """
        Returns the active subnet as a model of its own.

        :param do_copy: Must be true: the super-network stays.
        :param strip_format: Makes no difference.
        :raises ModelError: If it is to take the place of the super-network.
        """
        if not do_copy:
            msg = "A subnet cannot take the place of its super-network; call `strip(do_copy=True)`."
            raise ModelError(msg)
        return self.strip_model(self.model)

    def strip_model(self, model: nn.Module, do_copy: bool = False, strip_format: Any = None) -> nn.Module:
        """
        Returns the active subnet as a model of its own.

        :param model: The super-network's model, or NNCF's copy of it.
        :param do_copy: Makes no difference.
        :param strip_format: Makes no difference.
        :raises ModelError: If another algorithm has changed the model, since NNCF cannot strip that from a subnet.
        """
        if _nncf.is_compressed(self.model):
            msg = (
                "NNCF cannot strip from a subnet what its other algorithms have added, such as quantizers; call "
                "`export_model(path, 'ir')` or `bootstrapnas_ext.extract` with the controller or super-network of "
                f"{BOOTSTRAP_NAS!r}, which keep them."
            )
            raise ModelError(msg)
        return extract(self.supernet, self.supernet.active)


def _build(network: nn.Module, config: Any) -> NNCFController:
    own = NNCFConfig.from_dict(config)
    return make_controller(NNCFController, network, BootstrapNASConfig.from_nncf(own), own, _example(network))


def _example(network: nn.Module) -> ExampleInput:
    """Returns what NNCF traces the model with."""
    forward = dummy_forward(network)
    return ExampleInput(*example_arguments(network)) if forward is None else from_forward(network, forward)


algorithms2.register(BOOTSTRAP_NAS, algorithms2.builder_of(_build))
