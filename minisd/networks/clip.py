"""The CLIP text encoder: token ids (B,M) -> one vector per token (B,M,D).   Radford et al. 2021.

SD 1.x has OpenAI's CLIP ViT-L (12 layers of 768, quick_gelu); SD 2.x has OpenCLIP's ViT-H (1024, gelu), whose 24th layer the
checkpoints leave out, so both read the last layer that is there; SDXL has ViT-L and ViT-bigG (32 layers of 1280) side by side."""
from ..backend import ops
from .nn import embedding, layer_norm, linear, tap


def self_attention(p, x, heads):
    """(B,M,D) -> (B,M,D); a token attends to itself and to those before it."""
    q, k, v = linear(p.q_proj, x), linear(p.k_proj, x), linear(p.v_proj, x)
    return tap(p, linear(p.out_proj, ops.attention(q, k, v, heads, causal=True)))


def hidden_states(p, ids, cfg, count):
    """ids (B,M) -> what each of the first `count` layers gives: a list of (B,M,D).

    There is no padding mask: the padding tokens are part of the prompt."""
    e, found = p.embeddings, []
    position = tap(e.position_embedding, e.position_embedding.weight[:ids.shape[1]])
    x = tap(e, embedding(e.token_embedding, ids) + position)
    for i in range(count):
        layer = p.encoder.layers[i]
        x = x + self_attention(layer.self_attn, layer_norm(layer.layer_norm1, x, cfg.eps), cfg.heads)
        h = ops.ACTIVATIONS[cfg.act](linear(layer.mlp.fc1, layer_norm(layer.layer_norm2, x, cfg.eps)))
        x = tap(layer, x + tap(layer.mlp, linear(layer.mlp.fc2, h)))
        found.append(x)
    return found


def encode(p, ids, cfg, skip=1):
    """ids (B,M) -> context (B,M,D), as Stable Diffusion 1 and 2 read it.

    skip: which layer counted from the last gives the context, as AUTOMATIC1111's CLIP skip counts: 1 is the last one."""
    return layer_norm(p.final_layer_norm, hidden_states(p, ids, cfg, cfg.layers + 1 - skip)[-1], cfg.eps)


def encode_xl(p, ids, cfg, skip=2):
    """ids (B,M) -> (context (B,M,D), pooled vector (B,P), or None where the encoder has none), as Stable Diffusion XL reads them:
    the last layer but one, without the norm.   Podell et al. 2023, section 2.1."""
    states = hidden_states(p, ids, cfg, cfg.layers if cfg.pooled else cfg.layers + 1 - skip)
    return states[cfg.layers - skip], pool(p, states[-1], ids, cfg) if cfg.pooled else None


def pool(p, x, ids, cfg):
    """The last layer's vector of the end token, projected: x (B,M,D), ids (B,M) -> (B,P)"""
    return linear(p.text_projection, ops.vector_of(layer_norm(p.final_layer_norm, x, cfg.eps), ids, cfg.eos), bias=False)
