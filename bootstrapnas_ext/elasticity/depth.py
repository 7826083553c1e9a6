"""Elastic depth: blocks whose entry and exit have the same axes may be skipped.

Blocks that follow one another form a chain, and a chain is one choice: how many of its blocks run, counted from the
first, as in Once-for-all (Cai et al., 2020, https://arxiv.org/abs/1908.09791).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bootstrapnas_ext.config import DepthConfig, ElasticityConfig
from bootstrapnas_ext.elasticity.base import ELASTICITIES, ActiveSubnet, Elasticity, Refused, StaticLayer
from bootstrapnas_ext.elasticity.scopes import Exclusion, json_path
from bootstrapnas_ext.errors import ModelError
from bootstrapnas_ext.graph import ModelGraph, Propagation
from bootstrapnas_ext.graph.blocks import Block, Chain, block_between, find_blocks, find_chains, without_overwriting
from bootstrapnas_ext.space import Choice


class BlockError(ModelError):
    """
    A block of ``skipped_blocks`` that must run.

    :param index: Its position there.
    :param reason: Why.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"{json_path('depth', 'skipped_blocks', index)}: {reason}")
        self.index = index
        self.reason = reason


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
    depth = config.depth
    blocks: list[Block] = []
    static: list[StaticLayer] = []
    found = (
        dict(enumerate(find_blocks(propagation, depth.min_block_size, depth.max_block_size)))
        if depth.skipped_blocks is None
        else _named_blocks(propagation, depth.skipped_blocks, channels_vary=_channels_vary(config))
    )
    for index, block in found.items():
        name = _block_name(graph, block)
        reason = exclusion.reason({graph.ops[op].name for op in block.ops})
        if reason is None:
            blocks.append(block)
        elif depth.skipped_blocks is None:
            static.append(StaticLayer(name, reason))
        else:
            raise BlockError(index, f"a block must be allowed by the scopes, but {name!r} is {reason}; remove one.")
    chains = _chains(blocks, depth)
    named: dict[str, Chain] = {}
    for chain in chains:
        name = f"depth:{_block_name(graph, chain[0])}"
        if name in refused:
            static += [StaticLayer(_block_name(graph, block), refused[name]) for block in chain]
        else:
            named[name] = chain
    choices = tuple(Choice(name, tuple(range(len(chain), -1, -1)), "depth") for name, chain in named.items())
    return Elasticity("depth", choices, blocks=named, static=tuple(static))


def _channels_vary(config: ElasticityConfig) -> bool:
    """Whether subnets may differ in channels, as far as the config tells."""
    widths = config.width.overwrite_groups_widths  # of the only layers that may have several
    is_fixed = widths is not None and all(len(one) == 1 for one in widths)
    return not {"depth", "kernel", *(["width"] if is_fixed else [])}.issuperset(config.available_elasticity_dims)


def _named_blocks(
    propagation: Propagation, names: Sequence[tuple[str, str]], *, channels_vary: bool
) -> dict[int, Block]:
    """Returns the blocks of a config by their positions there, in the order of the model."""
    found: dict[int, Block] = {}
    for index, (before, last) in enumerate(names):
        try:
            found[index] = block_between(propagation, before, last, channels_vary=channels_vary)
        except ModelError as error:
            raise BlockError(index, str(error)) from error
    blocks = dict(sorted(found.items(), key=lambda item: item[1].ops[0]))
    for (one, first), (two, second) in itertools.combinations(blocks.items(), 2):
        shared = sorted({*first.ops} & {*second.ops})
        if shared:
            name = propagation.graph.ops[shared[0]].name
            raise BlockError(
                two, f"blocks must not overlap, but the operation {name!r} is in `skipped_blocks[{one}]`, too."
            )
    kept = without_overwriting(propagation.graph, blocks.values())
    for index, block in blocks.items():
        if block not in kept:
            name = propagation.graph.ops[block.ops[-1]].name
            raise BlockError(index, f"the block that ends at {name!r} must run: an operation after it works in place.")
    return blocks


def _chains(blocks: list[Block], config: DepthConfig) -> list[Chain]:
    if config.mode == "independent":
        return [(block,) for block in blocks]
    return find_chains(blocks)


def _block_name(graph: ModelGraph, block: Block) -> str:
    return block.calls[0].module if block.calls else graph.ops[block.ops[-1]].name
