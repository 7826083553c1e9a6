"""Running a model with hooks on its operations, and without some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import torch
from nncf.torch.function_hook.handle_inner_functions import get_handle_inner_function
from nncf.torch.function_hook.hook_executor_mode import OpMeta
from nncf.torch.function_hook.hook_storage import HookStorage
from torch import nn
from torch.overrides import TorchFunctionMode

from bootstrapnas_ext._nncf.host import HookExecutorMode
from bootstrapnas_ext._nncf.sites import Sites
from bootstrapnas_ext.functions import STAND_INS


class HookMode(HookExecutorMode):
    """
    Runs a model with given pre-op hooks, and without given operations, which are known by :attr:`Op.site`.

    :param model: The model.
    :param hooks: From operation and port to a function of the argument.
    :param replace: From an operation that must not run to a function that returns its result instead.
    :param keep: From operation to a function that is called with the operation's result.
    :param observe: Called with the site and the result of every operation.
    :param counters: For modules that do not run what they ran in the trace, by path, the counters that the trace had
        after their call: operations after it keep their names.
    """

    def __init__(
        self,
        model: nn.Module,
        hooks: Mapping[tuple[str, int], Callable[[Any], Any]],
        replace: Mapping[str, Callable[[], Any]] | None = None,
        keep: Mapping[str, Callable[[Any], None]] | None = None,
        observe: Callable[[str, Any], None] | None = None,
        counters: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        super().__init__(model=model, hook_storage=_DictStorage(hooks))
        self._replace = replace or {}
        self._keep = keep or {}
        self._observe = observe
        self._counters = {id(model.get_submodule(path)): counts for path, counts in (counters or {}).items()}
        self._sites = Sites(model)

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each function ran in each module, by :attr:`Op.site` without the number."""
        return self._sites.calls

    def get_next_op_call_name(self, fn_name: str) -> str:
        return self._sites.next(self.module_call_stack[-1], fn_name)

    def _get_wrapped_call(self, fn_call: MethodType) -> Callable[..., Any]:
        wrapped: Callable[..., Any] = super()._get_wrapped_call(fn_call)
        counters = self._counters.get(id(fn_call.__self__))
        if counters is None:
            return wrapped

        def counted(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = wrapped(module, *args, **kwargs)
            self._sites.calls.update(counters)
            return result

        return counted

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in STAND_INS:
            return run_stand_in(self, func, args, kwargs)
        only_calls_others = get_handle_inner_function(func) is not None  # it is no operation, but may be named like one
        if only_calls_others or not self.enabled or not (self._replace or self._keep or self._observe):
            return super().__torch_function__(func, types, args, kwargs)
        # The counter has not yet been moved on, so the site of this call is peeked at.
        site = self._sites.peek(self.module_call_stack[-1], func.__name__)
        if site in self._replace:
            self._sites.next(self.module_call_stack[-1], func.__name__)
            return _like_result_of(func, self._replace[site]())
        result = super().__torch_function__(func, types, args, kwargs)
        with self.disable():
            if site in self._keep:
                self._keep[site](result)
            if self._observe is not None:
                self._observe(site, result)
        return result

    def execute_pre_hooks(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], op_meta: OpMeta
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        with self.disable():  # what a hook computes is no operation of the model, and must not be counted as one
            hooked: tuple[tuple[Any, ...], dict[str, Any]] = super().execute_pre_hooks(args, kwargs, op_meta)
        return hooked


def run_stand_in(
    mode: TorchFunctionMode, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> Any:
    """
    Runs what stands in for a function, and traces or hooks the operations inside.

    :param mode: The mode that traces or hooks.
    :param func: A function that has a stand-in.
    :param args: Its positional arguments.
    :param kwargs: Its keyword arguments.
    """
    with mode:
        return STAND_INS[func](*args, **(kwargs or {}))


def _like_result_of(func: Callable[..., Any], result: Any) -> Any:
    """Gives several results the names by which a model may ask for them, as in ``x.max(1).values``."""
    named = getattr(torch.return_types, func.__name__, None)
    return named(result) if named is not None and isinstance(result, tuple) else result


class _DictStorage(HookStorage):
    """Hooks in a plain dictionary, which need not be modules of the model."""

    def __init__(self, hooks: Mapping[tuple[str, int], Callable[[Any], Any]]) -> None:
        super().__init__()
        object.__setattr__(self, "_hooks", dict(hooks))

    def execute_pre_function_hooks(self, op_name: str, port_id: int, value: Any) -> Any:
        hook = self._hooks.get((op_name, port_id))
        return value if hook is None else hook(value)

    def execute_post_function_hooks(self, op_name: str, port_id: int, value: Any) -> Any:
        return value
