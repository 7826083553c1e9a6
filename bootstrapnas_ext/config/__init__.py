"""
The NNCF JSON config: frozen dataclasses hold every default once, and the JSON Schema is made from them.

:class:`NNCFConfig` is the checked dictionary, :class:`BootstrapNASConfig` its typed view.
"""

from __future__ import annotations

from bootstrapnas_ext.config.elasticity import DepthConfig as DepthConfig
from bootstrapnas_ext.config.elasticity import ElasticityConfig as ElasticityConfig
from bootstrapnas_ext.config.elasticity import KernelConfig as KernelConfig
from bootstrapnas_ext.config.elasticity import KernelOverride as KernelOverride
from bootstrapnas_ext.config.elasticity import WidthConfig as WidthConfig
from bootstrapnas_ext.config.elasticity import WidthOverride as WidthOverride
from bootstrapnas_ext.config.keys import InputInfo as InputInfo
from bootstrapnas_ext.config.nncf_config import BNAdaptationInitArgs as BNAdaptationInitArgs
from bootstrapnas_ext.config.nncf_config import BootstrapNASConfig as BootstrapNASConfig
from bootstrapnas_ext.config.nncf_config import ModelEvaluationArgs as ModelEvaluationArgs
from bootstrapnas_ext.config.nncf_config import NNCFConfig as NNCFConfig
from bootstrapnas_ext.config.nncf_config import NNCFExtraConfigStruct as NNCFExtraConfigStruct
from bootstrapnas_ext.config.nncf_config import input_infos as input_infos
from bootstrapnas_ext.config.nncf_config import register_default_init_args as register_default_init_args
from bootstrapnas_ext.config.schema import json_schema as json_schema
from bootstrapnas_ext.config.search import ConstraintConfig as ConstraintConfig
from bootstrapnas_ext.config.search import LatencyConfig as LatencyConfig
from bootstrapnas_ext.config.search import SearchConfig as SearchConfig
from bootstrapnas_ext.config.training import AttentiveConfig as AttentiveConfig
from bootstrapnas_ext.config.training import BatchnormAdaptationConfig as BatchnormAdaptationConfig
from bootstrapnas_ext.config.training import DistillationConfig as DistillationConfig
from bootstrapnas_ext.config.training import LRScheduleConfig as LRScheduleConfig
from bootstrapnas_ext.config.training import LRScheduleParams as LRScheduleParams
from bootstrapnas_ext.config.training import OptimizationConfig as OptimizationConfig
from bootstrapnas_ext.config.training import SandwichConfig as SandwichConfig
from bootstrapnas_ext.config.training import ScheduleConfig as ScheduleConfig
from bootstrapnas_ext.config.training import StageConfig as StageConfig
from bootstrapnas_ext.config.training import TrainingConfig as TrainingConfig
