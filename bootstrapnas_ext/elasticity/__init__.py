"""Elastic dimensions: each is a set of choices plus pre-op hooks, found in the layouts of a model."""

from bootstrapnas_ext.elasticity import depth as _depth
from bootstrapnas_ext.elasticity import kernel as _kernel
from bootstrapnas_ext.elasticity import width as _width
from bootstrapnas_ext.elasticity.base import (
    ELASTICITIES,
    ActiveSubnet,
    Elasticity,
    Hook,
    PortHook,
    Refused,
    StaticLayer,
)

__all__ = ["ELASTICITIES", "ActiveSubnet", "Elasticity", "Hook", "PortHook", "Refused", "StaticLayer"]

del _depth, _kernel, _width
