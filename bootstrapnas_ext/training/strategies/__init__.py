"""Training strategies: which subnets a step trains, and what each learns from. One file each."""

from bootstrapnas_ext.training.strategies.attentive import attentive
from bootstrapnas_ext.training.strategies.base import STRATEGIES, Pass, Step, Strategy
from bootstrapnas_ext.training.strategies.fair import fair
from bootstrapnas_ext.training.strategies.progressive_shrinking import progressive_shrinking
from bootstrapnas_ext.training.strategies.random import random
from bootstrapnas_ext.training.strategies.sandwich import sandwich

__all__ = [
    "STRATEGIES",
    "Pass",
    "Step",
    "Strategy",
    "attentive",
    "fair",
    "progressive_shrinking",
    "random",
    "sandwich",
]
