"""From a trace to channel groups and blocks; plain values, no torch."""

from bootstrapnas_ext.graph import rules as _rules  # registers the axis rules
from bootstrapnas_ext.graph.axes import Axis, AxisSolver, Layout, Segment
from bootstrapnas_ext.graph.ir import ModelGraph, ModuleCall, Op, Path, Place, Ref, Value, part_of
from bootstrapnas_ext.graph.propagate import AXIS_RULES, Layer, NoRuleError, PortValue, Propagation, propagate

__all__ = [
    "AXIS_RULES",
    "Axis",
    "AxisSolver",
    "Layer",
    "Layout",
    "ModelGraph",
    "ModuleCall",
    "NoRuleError",
    "Op",
    "Path",
    "Place",
    "PortValue",
    "Propagation",
    "Ref",
    "Segment",
    "Value",
    "part_of",
    "propagate",
]

del _rules
