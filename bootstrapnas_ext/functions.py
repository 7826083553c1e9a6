"""Stand-ins for functions of PyTorch whose own code insists on sizes that subnets change.

Such a function consists of operations that could all follow a subnet, but it checks numbers first, or computes sizes
from others. Its stand-in computes the same from the shapes of the weights that it gets, so a subnet needs no other
numbers. Wherever the model runs under NNCF's function mode, the stand-in runs in the function's place; elsewhere, the
modules that call such a function run under a mode that does only this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bootstrapnas_ext.errors import ModelError


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """
    Computes what ``torch.nn.functional.multi_head_attention_forward`` computes, with any number of heads.

    That function takes the width of a head from the width of the query, so that heads and embedding could only shrink
    together. Here a head has ``embed_dim_to_check // num_heads`` channels, as in the given model, and there are as many
    heads as the weights have channels for.

    :param query: Shape ``(L, B, E)``, or ``(L, E)`` without a batch.
    :param key: Shape ``(S, B, E)`` or ``(S, E)``.
    :param value: As the key.
    :param embed_dim_to_check: Width of all heads of the given model.
    :param num_heads: Heads of the given model.
    :return: Output of the shape ``(L, B, E)``, and the weights if they are asked for.
    :raises ModelError: With ``static_k`` or ``static_v``, which no module of PyTorch uses.
    """
    if static_k is not None or static_v is not None:
        msg = "Attention with `static_k` or `static_v` cannot be a part of a super-network; pass keys and values."
        raise ModelError(msg)
    batched = query.dim() == 3
    if not batched:
        same_key, same_value = key is query, value is key
        query = query.unsqueeze(1)
        key = query if same_key else key.unsqueeze(1)
        value = key if same_value else value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    if use_separate_proj_weight:
        assert q_proj_weight is not None
        assert k_proj_weight is not None
        assert v_proj_weight is not None
        biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    else:
        assert in_proj_weight is not None
        q, k, v = _project(query, key, value, in_proj_weight, in_proj_bias)
    if bias_k is not None and bias_v is not None:
        k = torch.cat([k, bias_k.expand(-1, k.shape[1], -1)])
        v = torch.cat([v, bias_v.expand(-1, v.shape[1], -1)])
    head_dim = embed_dim_to_check // num_heads
    q, k, v = (x.view(*x.shape[:-1], -1, head_dim).permute(1, 2, 0, 3) for x in (q, k, v))
    if add_zero_attn:
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
    added = k.shape[-2] - key.shape[0]
    padded = key_padding_mask is not None
    mask = None if is_causal and not padded and not need_weights else _as_addend(attn_mask, q.dtype)
    if mask is not None:
        heads_apart = mask.dim() == 3
        mask = mask.view(-1, num_heads, *mask.shape[1:]) if heads_apart and mask.shape[0] != 1 else mask
        mask = F.pad(mask, (0, added)) if added else mask
    if key_padding_mask is not None:
        blocked = _as_addend(key_padding_mask, q.dtype)
        assert blocked is not None
        blocked = (F.pad(blocked, (0, added)) if added else blocked).unsqueeze(1).unsqueeze(1)
        mask = blocked if mask is None else mask + blocked
    dropout_p = dropout_p if training else 0.0
    attention: Tensor | None = None
    if need_weights:
        scores = (q * math.sqrt(1.0 / head_dim)) @ k.transpose(-2, -1)
        attention = F.softmax(scores if mask is None else mask + scores, dim=-1)
        attention = F.dropout(attention, dropout_p) if dropout_p > 0.0 else attention
        mixed = attention @ v
        attention = attention.mean(dim=1) if average_attn_weights else attention
    else:
        causal = is_causal and not padded
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, causal)
    output = F.linear(mixed.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    if not batched:
        return output.squeeze(1), None if attention is None else attention.squeeze(0)
    return output, attention


def _project(query: Tensor, key: Tensor, value: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    """Makes queries, keys and values by as few products as PyTorch does, so that the sums are the same."""
    if query is key and key is value:
        return F.linear(query, weight, bias).chunk(3, dim=-1)
    weights = weight.chunk(3)
    biases: Any = (None, None, None) if bias is None else bias.chunk(3)
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))


def _as_addend(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Returns a mask of what is blocked as what is added to the scores."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)


def with_stand_ins(forward: Callable[..., Any]) -> Callable[..., Any]:
    """
    Returns a function that does the same, with stand-ins.

    :param forward: Any function.
    """

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _StandIns():
            return forward(*args, **kwargs)

    return run


class _StandIns(TorchFunctionMode):
    """Runs the stand-ins in the place of their functions, and everything else as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return STAND_INS.get(func, func)(*args, **(kwargs or {}))


STAND_INS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.multi_head_attention_forward: multi_head_attention_forward,
}
"""Function of PyTorch to what runs in its place, with the same arguments and the same result."""
