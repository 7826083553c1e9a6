"""The keys of an NNCF config that this package reads, and the typed view of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from bootstrapnas_ext.config.rules import PositiveInt, Rule, Scopes, SomeScopes, Violation
from bootstrapnas_ext.config.search import SearchConfig
from bootstrapnas_ext.config.training import TrainingConfig


@dataclass(frozen=True)
class InputInfo:
    """
    One tensor that the model takes.

    :param sample_size: Its shape, the batch first, for example `[1, 3, 224, 224]`.
    :param type: "float" for 32-bit floating point, "long" for 64-bit integers.
    :param filler: What the tensor holds when the model is traced: "ones", "zeros", or "random" numbers between 0 and 1.
    :param keyword: The argument of `forward` that it is passed as; by position if not given.
    """

    sample_size: Annotated[tuple[PositiveInt, ...], Rule("minItems", 1)]
    type: Literal["float", "long"] = "float"
    filler: Literal["ones", "zeros", "random"] = "ones"
    keyword: str | None = None


@dataclass(frozen=True)
class NASBlock:
    """
    Super-network, training and search.

    :param training: How the super-network is built and trained.
    :param search: How subnets are searched and chosen.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass(frozen=True)
class TopLevel:
    """
    The keys of an NNCF config that this package reads; all others are the user's own and are not checked.

    :param input_info: The tensors that the model takes: one, or a list of them.
    :param bootstrapNAS: Super-network, training and search.
    :param ignored_scopes: As in `bootstrapNAS.training.elasticity`, and in addition to it.
    :param target_scopes: As in `bootstrapNAS.training.elasticity`, and in addition to it.
    """

    input_info: InputInfo | Annotated[tuple[InputInfo, ...], Rule("minItems", 1)] | None = None
    bootstrapNAS: NASBlock | None = None  # noqa: N815 - the key's own name
    ignored_scopes: Scopes = None
    target_scopes: SomeScopes = None

    def violations(self) -> Iterator[Violation]:
        """Yields what is wrong across keys."""
        keywords: set[str] = set()
        for index, info in enumerate(self.input_info if isinstance(self.input_info, tuple) else ()):
            if info.keyword is not None and info.keyword in keywords:
                yield Violation(
                    ("input_info", index, "keyword"),
                    f"must be another one than that of the tensors before, but got {info.keyword!r} again",
                )
            keywords |= {info.keyword} if info.keyword is not None else set()
