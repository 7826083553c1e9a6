"""Axis rules: for each kind of operation, how the axes of its outputs follow from those of its inputs.

A rule serves every function of that name, whether a module or the model's own code calls it. Names are those of the
functions without underscores at their ends, so ``add_`` and ``__add__`` are ``add``.
"""

from bootstrapnas_ext.graph.rules import (
    elementwise,
    indexing,
    layers,
    order,
    parts,
    products,
    recurrent,
    reductions,
    shapes,
    shuffles,
)

__all__ = [
    "elementwise",
    "indexing",
    "layers",
    "order",
    "parts",
    "products",
    "recurrent",
    "reductions",
    "shapes",
    "shuffles",
]
