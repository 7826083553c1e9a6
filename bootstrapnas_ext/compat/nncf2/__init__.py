"""
What scripts for NNCF 2's experimental BootstrapNAS import, with the same calls, call-backs and return values.

.. code-block:: python

    from bootstrapnas_ext.compat.nncf2 import BaseSearchAlgorithm, EpochBasedTrainingAlgorithm, create_nncf_network

    network = create_nncf_network(model, nncf_config)
    training = EpochBasedTrainingAlgorithm.from_config(network, nncf_config)
    network, controller = training.run(train_epoch, train_loader, validate, val_loader, optimizer, "checkpoints")
    search = BaseSearchAlgorithm.from_config(network, controller, nncf_config)
    controller, subnet_config, (macs, accuracy) = search.run(validate_top1, val_loader, "checkpoints")

``docs/migrating.md`` says what is where, and what behaves differently.
"""

from __future__ import annotations

from bootstrapnas_ext.compat.nncf2.controllers import CompressionStage as CompressionStage
from bootstrapnas_ext.compat.nncf2.controllers import ElasticityController as ElasticityController
from bootstrapnas_ext.compat.nncf2.controllers import NNCFStatistics as NNCFStatistics
from bootstrapnas_ext.compat.nncf2.controllers import ProgressiveShrinkingController as ProgressiveShrinkingController
from bootstrapnas_ext.compat.nncf2.creation import (
    create_compressed_model_from_algo_names as create_compressed_model_from_algo_names,
)
from bootstrapnas_ext.compat.nncf2.creation import create_nncf_network as create_nncf_network
from bootstrapnas_ext.compat.nncf2.creation import load_state as load_state
from bootstrapnas_ext.compat.nncf2.creation import nncf_model_input as nncf_model_input
from bootstrapnas_ext.compat.nncf2.creation import nncf_model_output as nncf_model_output
from bootstrapnas_ext.compat.nncf2.creation import resume_compression_from_state as resume_compression_from_state
from bootstrapnas_ext.compat.nncf2.data import BNAdaptationInitArgs as BNAdaptationInitArgs
from bootstrapnas_ext.compat.nncf2.data import DefaultInitializingDataLoader as DefaultInitializingDataLoader
from bootstrapnas_ext.compat.nncf2.data import PTInitializingDataLoader as PTInitializingDataLoader
from bootstrapnas_ext.compat.nncf2.data import default_criterion_fn as default_criterion_fn
from bootstrapnas_ext.compat.nncf2.data import wrap_dataloader_for_init as wrap_dataloader_for_init
from bootstrapnas_ext.compat.nncf2.dimensions import ElasticityDim as ElasticityDim
from bootstrapnas_ext.compat.nncf2.evaluators import AccuracyEvaluator as AccuracyEvaluator
from bootstrapnas_ext.compat.nncf2.evaluators import BaseEvaluator as BaseEvaluator
from bootstrapnas_ext.compat.nncf2.evaluators import MACsEvaluator as MACsEvaluator
from bootstrapnas_ext.compat.nncf2.handler import MultiElasticityHandler as MultiElasticityHandler
from bootstrapnas_ext.compat.nncf2.handler import SubnetConfig as SubnetConfig
from bootstrapnas_ext.compat.nncf2.search import BaseSearchAlgorithm as BaseSearchAlgorithm
from bootstrapnas_ext.compat.nncf2.search import NSGA2SearchAlgorithm as NSGA2SearchAlgorithm
from bootstrapnas_ext.compat.nncf2.search import RNSGA2SearchAlgorithm as RNSGA2SearchAlgorithm
from bootstrapnas_ext.compat.nncf2.search import SearchAlgorithm as SearchAlgorithm
from bootstrapnas_ext.compat.nncf2.trained_supernet import TrainedSuperNet as TrainedSuperNet
from bootstrapnas_ext.compat.nncf2.training import EpochBasedTrainingAlgorithm as EpochBasedTrainingAlgorithm
from bootstrapnas_ext.compat.nncf2.training import is_main_process as is_main_process
from bootstrapnas_ext.config import ModelEvaluationArgs as ModelEvaluationArgs
from bootstrapnas_ext.config import NNCFConfig as NNCFConfig
from bootstrapnas_ext.config import register_default_init_args as register_default_init_args
from bootstrapnas_ext.flow import create_compressed_model as create_compressed_model
