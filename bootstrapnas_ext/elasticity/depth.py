"""Elastic depth: blocks whose entry and exit have the same axes may be skipped.

Blocks that follow one another form a chain, and a chain is one choice: how many of its blocks run, counted from the
first, as in Once-for-all (Cai et al., 2020, https://arxiv.org/abs/1908.09791).
"""

from __future__ import annotations

import itertools

from bootstrapnas_ext.config import DepthConfig, ElasticityConfig
from bootstrapnas_ext.elasticity.base import ELASTICITIES, ActiveSubnet, Elasticity, Refused, StaticLayer
from bootstrapnas_ext.elasticity.scopes import Exclusion
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.graph import ModelGraph, Propagation
from bootstrapnas_ext.graph.blocks import Block, Chain, block_between, find_blocks, find_chains, without_overwriting
from bootstrapnas_ext.space import Choice


@ELASTICITIES.register("depth")
def elastic_depth(
    propagation: Propagation, cell: ActiveSubnet, config: ElasticityConfig, refused: Refused
) -> Elasticity:
    """
    Makes a choice of each chain of blocks, or of each block.

    :param propagation: Layouts of the model.
    :param cell: Not needed: depth changes which operations run, not their arguments.
    :param config: Its ``depth`` and its scopes are used.
    :param refused: Choices not to make, with the reasons.
    """
    graph = propagation.graph
    exclusion = Exclusion(graph, config, "depth")
    blocks: list[Block] = []
    static: list[StaticLayer] = []
    for block in _blocks(propagation, config.depth):
        name = _block_name(graph, block)
        reason = exclusion.reason({graph.ops[op].name for op in block.ops})
        if reason is None:
            blocks.append(block)
        elif config.depth.skipped_blocks is None:
            static.append(StaticLayer(name, reason))
        else:
            msg = f"A block in `skipped_blocks` must be allowed by the scopes, but {name!r} is {reason}; remove one."
            raise ModelError(msg)
    chains = _chains(blocks, config.depth)
    named: dict[str, Chain] = {}
    for chain in chains:
        name = f"depth:{_block_name(graph, chain[0])}"
        if name in refused:
            static += [StaticLayer(_block_name(graph, block), refused[name]) for block in chain]
        else:
            named[name] = chain
    choices = tuple(Choice(name, tuple(range(len(chain), -1, -1)), "depth") for name, chain in named.items())
    return Elasticity("depth", choices, blocks=named, static=tuple(static))


def _blocks(propagation: Propagation, config: DepthConfig) -> list[Block]:
    if config.skipped_blocks is None:
        return find_blocks(propagation, config.min_block_size, config.max_block_size)
    blocks = sorted(
        (block_between(propagation, before, last) for before, last in config.skipped_blocks),
        key=lambda block: block.ops[0],
    )
    for one, two in itertools.combinations(blocks, 2):
        shared = sorted({*one.ops} & {*two.ops})
        if shared:
            name = propagation.graph.ops[shared[0]].name
            msg = f"`skipped_blocks` must not overlap, but the operation {name!r} is in two of them."
            raise ModelError(msg)
    kept = without_overwriting(propagation.graph, blocks)
    for block in blocks:
        if block not in kept:
            name = propagation.graph.ops[block.ops[-1]].name
            msg = f"The block that ends at {name!r} in `skipped_blocks` must run: an operation after it works in place."
            raise ModelError(msg)
    return blocks


def _chains(blocks: list[Block], config: DepthConfig) -> list[Chain]:
    if config.mode == "independent":
        return [(block,) for block in blocks]
    return find_chains(blocks)


def _block_name(graph: ModelGraph, block: Block) -> str:
    return block.calls[0].module if block.calls else graph.ops[block.ops[-1]].name
