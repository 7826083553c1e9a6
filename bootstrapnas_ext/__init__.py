"""Neural architecture search for PyTorch and OpenVINO users: smaller, faster models from a pre-trained one.

.. code-block:: python

    import bootstrapnas_ext as bnas

    config = bnas.NNCFConfig.from_json("config.json")
    bnas.register_default_init_args(config, train_loader)
    controller, model = bnas.create_compressed_model(model, config)
    bnas.EpochBasedTrainingAlgorithm.from_config(controller, config).run(train_loader, val_loader, optimizer, "run")
    result = bnas.SearchAlgorithm.from_config(controller, config).run(val_loader, "run")
    controller.multi_elasticity_handler.activate_subnet(result.selection.best.subnet)
    controller.export_model("run/best")
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bootstrapnas_ext.algorithms import EpochBasedTrainingAlgorithm as EpochBasedTrainingAlgorithm
    from bootstrapnas_ext.algorithms import SearchAlgorithm as SearchAlgorithm
    from bootstrapnas_ext.config import NNCFConfig as NNCFConfig
    from bootstrapnas_ext.config import register_default_init_args as register_default_init_args
    from bootstrapnas_ext.cost import Cost as Cost
    from bootstrapnas_ext.deployment import deploy as deploy
    from bootstrapnas_ext.errors import BootstrapNASError as BootstrapNASError
    from bootstrapnas_ext.extraction import extract as extract
    from bootstrapnas_ext.flow import ALGORITHMS as ALGORITHMS
    from bootstrapnas_ext.flow import BootstrapNASController as BootstrapNASController
    from bootstrapnas_ext.flow import create_compressed_model as create_compressed_model
    from bootstrapnas_ext.inputs import ExampleInput as ExampleInput
    from bootstrapnas_ext.space import SearchSpace as SearchSpace
    from bootstrapnas_ext.space import Subnet as Subnet
    from bootstrapnas_ext.supernet import Supernet as Supernet

_HOMES = {
    "ALGORITHMS": "flow",
    "BootstrapNASController": "flow",
    "BootstrapNASError": "errors",
    "Cost": "cost",
    "EpochBasedTrainingAlgorithm": "algorithms",
    "ExampleInput": "inputs",
    "NNCFConfig": "config",
    "SearchAlgorithm": "algorithms",
    "SearchSpace": "space",
    "Subnet": "space",
    "Supernet": "supernet",
    "create_compressed_model": "flow",
    "deploy": "deployment",
    "extract": "extraction",
    "register_default_init_args": "config",
}
__version__ = "0.1.0"
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for, since torch and OpenVINO take seconds to load."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


if metadata.version("nncf").startswith("2."):  # NNCF 3 has no registry of algorithms
    import_module(f"{__name__}.inside_nncf2")
