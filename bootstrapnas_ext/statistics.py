"""Running statistics of norms: the maximum has those of the modules, and every other subnet its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from bootstrapnas_ext.elasticity import ActiveSubnet
from bootstrapnas_ext.elasticity.width import SliceHook
from bootstrapnas_ext.ports import Port
from bootstrapnas_ext.shadows import swapped
from bootstrapnas_ext.space import SearchSpace, Subnet

Buffers = dict[str, Tensor | None]
"""What a module registers as buffers, by name."""


def keeps_statistics(module: nn.Module) -> bool:
    """
    Returns whether a module is a norm that counts in training what it uses in evaluation.

    :param module: Any module.
    """
    return isinstance(getattr(module, "running_mean", None), Tensor) and hasattr(module, "momentum")


@contextmanager
def active_statistics(model: nn.Module) -> Iterator[None]:
    """
    Lets the buffers of norms be those of the active subnet for a while, where the model is a super-network's.

    :param model: Any model.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, NormStatistics):
                stack.enter_context(module.cast())
        yield


class NormStatistics(nn.Module):
    """
    Copies of the maximum's statistics for the active subnet, which last until another subnet is activated.

    They begin with its first forward in which a norm is in training mode; before, the subnet has the maximum's. Copies
    are whole, and hooks take the active part of them as of any buffer.

    It stands among the modules of the model, without tensors of its own, to see when other statistics are loaded.

    :param model: The model.
    :param cell: Where the active subnet is read; it keeps the copies.
    """

    def __init__(self, model: nn.Module, cell: ActiveSubnet) -> None:
        super().__init__()
        self._cell = cell
        self._norms = [module for module in model.modules() if keeps_statistics(module)]
        self._restarts = 0

    def begin(self) -> bool:
        """
        Makes the copies if there are none, and the next forward may change them.

        :return: Whether the active subnet, which is not the maximum, has other statistics than that.
        """
        if self._restarts in self._cell.statistics:
            return True
        if True not in [norm.training for norm in self._norms]:  # in every forward, so it should be quick
            return False
        self._cell.statistics[self._restarts] = _copies(self._norms)
        return True

    def restart(self) -> None:
        """Lets all subnets begin anew with the maximum's statistics, the active one and those around it, too."""
        self._restarts += 1

    @contextmanager
    def cast(self) -> Iterator[None]:
        """Gives norms the statistics of the active subnet for a while."""
        held = self._held()
        # Whole dictionaries take turns, so that what the code of a norm assigns is the subnet's too.
        with swapped((vars(norm), "_buffers", own) for norm, own in zip(self._norms, held, strict=False)):
            yield
        self._keep(held)

    def _held(self) -> Sequence[Buffers]:
        """Returns the buffers of each norm in the active subnet; nothing if they are the maximum's."""
        copies = self._cell.statistics.get(self._restarts, [])
        for norm, own in zip(self._norms, copies, strict=False):
            _follow(norm, own)
        return copies

    def _keep(self, held: Sequence[Buffers]) -> None:
        """Takes back what :meth:`_held` returned, after a forward."""

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._restarts += 1


class StatisticsPerWidth(NormStatistics):
    """
    Statistics that last, for all subnets but the maximum: a set for each width of each norm, as in Yu et al.,
    *Slimmable Neural Networks*, ICLR 2019 (https://arxiv.org/abs/1812.08928).

    The sets are buffers, which begin with the maximum's statistics.

    :param model: The model.
    :param cell: Where the active subnet is read.
    :param space: All subnets.
    :param ports: Hooked arguments; those that come from norms tell which choices a norm follows.
    """

    def __init__(self, model: nn.Module, cell: ActiveSubnet, space: SearchSpace, ports: Iterable[Port]) -> None:
        super().__init__(model, cell)
        self._maximum = space.maximum
        slices = {
            model.get_submodule(source.place.module): hook
            for port in ports
            for source in port.sources
            for hook in port.hooks
            if source.place.attribute == "running_mean" and isinstance(hook, SliceHook)
        }
        values = {choice.name: choice.values for choice in space.choices}
        names = {module: f"/{name.replace('.', '/')}" for name, module in model.named_modules()}
        self._sets = [_Sets(norm, slices.get(norm), values) for norm in self._norms]
        self.norms = nn.ModuleDict(dict(zip((names[norm] for norm in self._norms), self._sets, strict=True)))

    def begin(self) -> bool:
        return True

    def restart(self) -> None:
        """Gives all sets the maximum's statistics."""
        for norm, sets in zip(self._norms, self._sets, strict=True):
            sets.fill(norm)

    def _held(self) -> Sequence[Buffers]:
        subnet = self._cell.subnet
        return [] if subnet == self._maximum else [sets.of(subnet) for sets in self._sets]

    def _keep(self, held: Sequence[Buffers]) -> None:
        for norm, sets, own in zip(self._norms, self._sets, held, strict=False):
            if norm.training:
                sets.keep(self._cell.subnet, own)


class _Sets(nn.ModuleList):
    """
    The statistics of one norm, a set for each width, the full one first.

    Where channels come from several layers, those of each are in the set of its own width, and other buffers, such as
    the number of batches, in that of the first one's.

    :param norm: The norm.
    :param hook: What takes the active part of the statistics; ``None`` if it is not known to be ever less than all.
    :param values: Name of a choice to its values.
    """

    def __init__(self, norm: nn.Module, hook: SliceHook | None, values: Mapping[str, Sequence[int]]) -> None:
        self._dim, runs = (0, ()) if hook is None else (hook.elastic[0][0], hook.elastic[0][1].runs)
        sizes = [run.size * run.repeat for run in runs]
        self._spans = list(zip(accumulate(sizes, initial=0), sizes, strict=False))
        self._choices = [(run.choice, values[run.choice]) if run.choice else None for run in runs] or [None]
        super().__init__(nn.Module() for _ in range(max(len(choice[1]) if choice else 1 for choice in self._choices)))
        self._joined = [
            name for name, buffer in norm.named_buffers(recurse=False) if buffer.shape == norm.running_mean.shape
        ]
        for one in self:
            for name in norm._buffers:
                one.register_buffer(name, None)
        self.fill(norm)

    def of(self, subnet: Subnet) -> Buffers:
        """
        Returns the statistics for a subnet, by name.

        :param subnet: The subnet.
        """
        numbers = self._numbers(subnet)
        own = self[numbers[0]]._buffers
        if len(set(numbers)) == 1:
            return own
        return {**own, **{name: torch.cat(self._parts(name, numbers), self._dim) for name in self._joined}}

    def keep(self, subnet: Subnet, own: Buffers) -> None:
        """
        Takes back what :meth:`of` returned, after a forward.

        :param subnet: The subnet.
        :param own: The statistics.
        """
        numbers = self._numbers(subnet)
        if len(set(numbers)) == 1:
            return
        for name, buffer in own.items():
            if buffer is not None and name in self._joined:
                for part, span in zip(self._parts(name, numbers), self._spans, strict=True):
                    part.copy_(buffer.narrow(self._dim, *span))
            else:
                self[numbers[0]]._buffers[name] = buffer

    def fill(self, norm: nn.Module) -> None:
        """
        Makes all sets equal.

        :param norm: Has the statistics that they get.
        """
        for one, copies in zip(self, _copies([norm] * len(self)), strict=True):
            one._buffers.update(copies)

    def _numbers(self, subnet: Subnet) -> list[int]:
        """Returns of which set each layer's part is."""
        return [0 if choice is None else choice[1].index(subnet[choice[0]]) for choice in self._choices]

    def _parts(self, name: str, numbers: Sequence[int]) -> list[Tensor]:
        """Returns each layer's part; to change one is as silent to gradients as what norms do themselves."""
        tensors = (getattr(self[number], name).data for number in numbers)
        return [tensor.narrow(self._dim, *span) for tensor, span in zip(tensors, self._spans, strict=True)]


def _copies(norms: Iterable[nn.Module]) -> list[Buffers]:
    with torch.inference_mode(False), torch.no_grad():  # tensors of that mode could not be changed outside of it
        return [
            {name: None if buffer is None else buffer.clone() for name, buffer in norm._buffers.items()}
            for norm in norms
        ]


def _follow(norm: nn.Module, own: Buffers) -> None:
    """Brings copies to where the norm's buffers are now, in their types."""
    for name, buffer in norm._buffers.items():
        copy = own.get(name)
        if copy is None or buffer is None or (copy.dtype == buffer.dtype and copy.device == buffer.device):
            continue
        with torch.inference_mode(False), torch.no_grad():
            own[name] = copy.to(buffer)
