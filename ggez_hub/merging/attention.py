"""Attention of torch as layers that can take a LoRA."""

from typing import Any


def split_attention(model: Any) -> None:
    """Replaces every torch.nn.MultiheadAttention in a model by one made of two linear layers, on the same weights.

    Torch's own reads its weights directly, so a LoRA on its output projection is never called; PEFT's wrapper applies
    that delta twice, and merges and unmerges in every forward pass. Here `in_proj` (query, key and value, packed) and
    `out_proj` are ordinary layers. Names in files fit: `in_proj_weight` and `in_proj.weight` have one canonical form.

    Args:
        model: A torch module, such as open_clip's CLIP; changed in place.
    """
    import torch

    class Attention(torch.nn.Module):
        """Takes the arguments of torch.nn.MultiheadAttention, for batches; returns no attention weights."""

        def __init__(self, packed: torch.nn.MultiheadAttention) -> None:
            super().__init__()
            self.num_heads, self.batch_first = packed.num_heads, packed.batch_first
            self.in_proj = linear(packed.in_proj_weight, packed.in_proj_bias)
            self.out_proj = linear(packed.out_proj.weight, packed.out_proj.bias)

        def forward(
            self,
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            key_padding_mask: torch.Tensor | None = None,
            need_weights: bool = False,
            attn_mask: torch.Tensor | None = None,
            **_: Any,
        ) -> tuple[torch.Tensor, None]:
            if key is not value or key_padding_mask is not None or need_weights:
                raise NotImplementedError("attention with other values than keys, padding masks or returned weights")
            if query is key:
                parts = self.in_proj(query).chunk(3, dim=-1)
            else:
                parts = (self.in_proj(query).chunk(3, dim=-1)[0], *self.in_proj(key).chunk(3, dim=-1)[1:])
            if not self.batch_first:
                parts = tuple(part.transpose(0, 1) for part in parts)
            q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
            if attn_mask is not None and attn_mask.dim() == 3:  # [batch * heads, ...]
                attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
            if attn_mask is not None and attn_mask.dtype == torch.bool:
                attn_mask = ~attn_mask  # torch's attention masks what is true, its inner function keeps it
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask).transpose(1, 2).flatten(2)
            return self.out_proj(mixed if self.batch_first else mixed.transpose(0, 1)), None

    def linear(weight: Any, bias: Any) -> torch.nn.Linear:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        layer.weight, layer.bias = weight, bias  # the very parameters: nothing is copied
        return layer

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if (
                isinstance(child, torch.nn.MultiheadAttention)
                and child._qkv_same_embed_dim
                and not (child.bias_k is not None or child.add_zero_attn)
            ):
                setattr(module, name, Attention(child).train(child.training))
