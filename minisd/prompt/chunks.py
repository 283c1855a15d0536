"""Prompts of any length: token ids and weights in chunks of as many tokens as the text encoder reads, each encoded by itself.

As in AUTOMATIC1111's web UI; the chunks' vectors stand one after the other in the context."""
import numpy as np

from ..errors import InputError
from .syntax import BREAK, parse

BACK = 20                                                    # tokens to go back to a comma, where a chunk is full
MOST = 64


def chunks(tokenizer, prompt):
    """-> (ids (n,M), weights (n,M)), n chunks of M = tokenizer.length.

    A chunk that is full ends at its last comma, if that is among its last 20 tokens.  Raises InputError for more than 64 chunks."""
    room, found, tokens, weights, comma = tokenizer.length - 2, [], [], [], 0

    def finish(count):
        nonlocal tokens, weights, comma
        if len(found) == MOST:
            raise InputError(f"the prompt takes more than {MOST} chunks of {room} tokens; shorten it, or use fewer BREAKs")
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
