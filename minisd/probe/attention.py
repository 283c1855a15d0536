"""Where the unet looks for each token of the prompt: the weights of its cross-attention, pooled as they come.

Tang et al. 2022 (DAAM), section 3, but that each step keeps maps of its own, and that weights stay what they are: shares, which sum to 1
over the tokens at each position."""
from dataclasses import dataclass, field

import numpy as np

from ..backend import ops
from ..conditioning import tokenize
from ..errors import InputError
from .features import resized, shrunk

MOST = 64                                                    # positions each way that a map keeps


@dataclass(frozen=True)
class Token:
    """One place of the context.  text: as the tokenizer cut it;  id: in its vocabulary;  weight: in the prompt;  chunk: which, from 0
    kind: "start", "word", "end", "padding", or "none": of a prompt that is no text at all, or that is shorter than another's
    second: what Stable Diffusion XL's second text encoder reads here, where it is another text"""
    text: str
    id: int | None
    weight: float
    chunk: int
    kind: str
    second: str | None = None


def read_tokens(encoders, prompt, second, weighted, length):
    """One prompt, and the second text encoder's or None -> `length` Tokens, as they stand in the context."""
    found, others = tokens_of(encoders[0].tokenizer, prompt, weighted), None
    if second is not None and second != prompt:
        others = tokens_of(encoders[-1].tokenizer, second, weighted)
    found = found + [Token("", None, 1.0, found[-1].chunk, "none")] * (length - len(found))
    if others is None:
        return tuple(found)
    others += [Token("", None, 1.0, 0, "none")] * (length - len(others))
    return tuple(Token(a.text, a.id, a.weight, a.chunk, a.kind, b.text) for a, b in zip(found, others))


def tokens_of(tokenizer, prompt, weighted):
    """A prompt's Tokens, chunk after chunk."""
    (ids, weights), = tokenize(tokenizer, [prompt], weighted)
    found = []
    for chunk, (row, scale) in enumerate(zip(ids.tolist(), weights.tolist())):
        end = len(row) - next(k for k, i in enumerate(row[::-1]) if i not in (tokenizer.pad, tokenizer.eos))      # the start, at least
        for place, (token, weight) in enumerate(zip(row, scale)):
            kind = "start" if place == 0 else "word" if place < end else "end" if place == end else "padding"
            found.append(Token(tokenizer.text_of(token), token, weight, chunk, kind))
    return found


def shares(q, k, heads):
    """How much attention takes of each key at each query: q (B,N,C), k (B,M,C) -> (B,N,M), the mean over heads.

    It is the operation itself that says so, asked with values that are 1 for one key and 0 for all others, as many at a time as a head is
    wide."""
    xp, (B, M, C), N = ops.xp_of(q), k.shape, q.shape[1]
    d, found = C // heads, []
    for first in range(0, M, d):
        count = min(d, M - first)
        values = xp.zeros((B, M, heads, d), k.dtype)
        places = xp.arange(count)
        values[:, first + places, :, places] = 1
        found.append(ops.attention(q, k, values.reshape(B, M, C), heads).reshape(B, N, heads, d)[..., :count].mean(2, dtype="float32"))
    return xp.concatenate(found, axis=-1)


@dataclass
class StepMaps:
    """Of one call of the unet.  i: the Step's;  texts: which of AttentionMaps.texts each branch of guidance reads
    maps: {(H,W): float16 (branches,M,H,W)}, the mean of the layers of that size"""
    i: int
    texts: tuple
    maps: dict


@dataclass
class AttentionMaps:
    """report.attention["apple"]: where the unet looked for that token, (H,W), mean of heads, layers and steps.

    texts: what was read, tuples of Tokens;  steps: StepMaps;  layers: {(H,W): how many layers have maps of that size};
    branches: of guidance, in words"""
    texts: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    layers: dict = field(default_factory=dict)
    branches: list = field(default_factory=list)

    def at(self, step=None, size=None, branch=-1, text=None):
        """Shares (M,H,W) float32 of each token at each position.

        step: one of `steps`, None for the mean of all that read the same text;  size: (H,W) of the layers, None for the mean of all layers,
        at the largest size;  branch: of guidance, the last is the prompt's;  text: number in `texts`, None for what the last step reads"""
        text = self.steps[-1].texts[branch] if text is None else text
        chosen = [s for s in self.steps if s.texts[branch] == text] if step is None else [step]
        sizes = [size] if size is not None else list(self.layers)
        if not sizes or any(s not in self.layers for s in sizes):
            raise InputError(f"no maps of size {size!r:.80}; cross-attention is at {', '.join(map(str, self.layers)) or 'no size at all'}")
        largest = max(sizes)
        each = {s: np.mean([c.maps[s][branch].astype(np.float32) for c in chosen], axis=0) for s in sizes}
        weights = np.array([self.layers[s] for s in sizes], np.float32)
        return sum(w * resized(each[s], largest) for s, w in zip(sizes, weights / weights.sum()))

    def __getitem__(self, token):
        """token: as it is written, or its place, 0 or more.  One that is there several times is looked for at all its places."""
        tokens = self.texts[self.steps[-1].texts[-1]]
        places = [token] if isinstance(token, int) and 0 <= token < len(tokens) else [k for k, t in enumerate(tokens) if t.text == token]
        if not places:
            words = " ".join(t.text for t in tokens if t.kind == "word")
            raise InputError(f"no token {token!r:.80}; there are {words or 'none'}, and places 0 to {len(tokens) - 1}")
        return self.at()[places].sum(0)


class Pooling:
    """Makes AttentionMaps of what is seen of the unet's operations.  download: the device's, array -> host array"""

    def __init__(self, download):
        self.download = download
        self.found, self.sums, self.counts, self.given = AttentionMaps(), {}, {}, {}

    def see(self, layer, args, size):
        """One operation of the unet.  size: (H,W) of the last map"""
        last = layer.name.rpartition(".")[2]
        if last in ("to_q", "to_k"):
            self.given[last] = args[0]
        elif layer.operation == "attention" and self.given.get("to_q") is not self.given.get("to_k"):
            q, k, _, heads = args[:4]
            maps = self.download(shares(q, k, heads))
            maps = np.stack([shrunk(m.reshape(*size, -1), MOST) for m in maps]).transpose(0, 3, 1, 2)
            kept = maps.shape[2:]
            self.sums[kept] = self.sums.get(kept, 0) + maps
            self.counts[kept] = self.counts.get(kept, 0) + 1

    def end(self, i, texts, keep):
        """A call of the unet is over, for the Step i.  texts: what its branches read;  keep: whether its maps are wanted"""
        if keep:
            self.found.steps.append(StepMaps(i, texts, {s: (a / self.counts[s]).astype(np.float16) for s, a in self.sums.items()}))
            self.found.layers = dict(sorted(self.counts.items(), reverse=True))
        self.sums, self.counts, self.given = {}, {}, {}
