"""Training strategies: which subnets a step trains. One file each."""

from bootstrapnas_ext.training.strategies.base import STRATEGIES, Step, Strategy
from bootstrapnas_ext.training.strategies.progressive_shrinking import progressive_shrinking

__all__ = ["STRATEGIES", "Step", "Strategy", "progressive_shrinking"]
