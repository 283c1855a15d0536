"""What a prompt says beside its words, as AUTOMATIC1111's web UI reads it: weights, BREAK, and any length.

(word) counts 1.1 times as much, (word:1.3) 1.3 times, [word] 1/1.1 times; brackets nest and multiply; \\( \\) \\[ \\] \\\\ are the
characters themselves; BREAK begins a new chunk.  A chunk is as many tokens as the text encoder reads; each is encoded by itself, and
their vectors stand one after the other."""
import re

import numpy as np

from ..backend.ops import xp_of

PIECE = re.compile(r"\\(?P<escaped>[()\[\]\\])|(?P<open>[(\[])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<close>[)\]])"
                   r"|[^\\()\[\]:]+|[\\:]")
ROUND, SQUARE = 1.1, 1 / 1.1
BREAK = None                                                 # stands for a text
BACK = 20                                                    # tokens to go back to a comma, where a chunk is full


def parse(prompt):
    """prompt -> [(text or BREAK, weight), ...], neighbours of the same weight joined; brackets left open close at the end."""
    found, begun = [], []                                    # begun: (bracket, where it begins in `found`)

    def close(bracket, weight):
        k = max(i for i, (b, _) in enumerate(begun) if b == bracket)
        for item in found[begun.pop(k)[1]:]:
            item[1] *= weight

    for piece in PIECE.finditer(prompt):
        text, kinds = piece[0], {bracket for bracket, _ in begun}
        if piece["open"]:
            begun.append((text, len(found)))
        elif piece["weight"] and "(" in kinds:
            close("(", float(piece["weight"]))
        elif piece["close"] and {")": "(", "]": "["}[text] in kinds:
            close(*(("(", ROUND) if text == ")" else ("[", SQUARE)))
        else:
            parts = [piece["escaped"]] if piece["escaped"] else re.split(r"\s*\bBREAK\b\s*", text)
            for i, part in enumerate(parts):
                found += [[BREAK, 1.0], [part, 1.0]] if i else [[part, 1.0]]
    while begun:
        close(begun[-1][0], ROUND if begun[-1][0] == "(" else SQUARE)
    joined = []
    for text, weight in found:
        if joined and text is not BREAK and joined[-1][0] is not BREAK and joined[-1][1] == weight:
            joined[-1] = joined[-1][0] + text, weight
        elif text != "":
            joined.append((text, weight))
    return joined or [("", 1.0)]


def chunks(tokenizer, prompt):
    """-> (ids (n,M), weights (n,M)), n chunks of M = tokenizer.length.

    A chunk that is full ends at its last comma, if that is among its last 20 tokens."""
    room, found, tokens, weights, comma = tokenizer.length - 2, [], [], [], 0

    def finish(count):
        nonlocal tokens, weights, comma
        found.append((tokenizer.framed(tokens[:count]), [1.0, *weights[:count], *[1.0] * (room - count + 1)]))
        tokens, weights, comma = tokens[count:], weights[count:], 0

    for text, weight in parse(prompt):
        if text is BREAK:
            finish(len(tokens))
            continue
        for token in tokenizer.ids(text):
            if len(tokens) == room:
                finish(comma if comma and room - comma < BACK and token != tokenizer.comma else room)
            tokens.append(token)
            weights.append(weight)
            comma = len(tokens) if token == tokenizer.comma else comma
    if tokens or not found:
        finish(len(tokens))
    ids, scale = zip(*found)
    return np.array(ids, np.int64), np.array(scale, np.float32)


def weighted(z, weights):
    """Vectors z (n,M,D), each times its weight (n,M), and then all of a chunk by what brings their mean back to what it was."""
    before = z.mean((1, 2), keepdims=True)
    z = z * weights[..., None]
    return z * (before / z.mean((1, 2), keepdims=True))


def stacked(z, counts):
    """Chunks z (n,M,D), so many of each prompt -> (B,k M,D), k the most of them; shorter ones repeat their last vector."""
    most, M = max(counts), z.shape[1]
    rows, at = [], 0
    for count in counts:
        whole = z[at:at + count].reshape(count * M, -1)
        rows += [whole, whole[-1:].repeat((most - count) * M, axis=0)]
        at += count
    return z if most == 1 else xp_of(z).concatenate(rows).reshape(len(counts), most * M, -1)
