"""What a prompt says besides its words, as AUTOMATIC1111's web UI reads it: weights and BREAK.

(word) counts 1.1 times as much, (word:1.3) 1.3 times, [word] 1/1.1 times; brackets nest and multiply; \\( \\) \\[ \\] \\\\ are the
characters themselves; BREAK begins a new chunk (chunks.py)."""
import re

import numpy as np

from ..errors import InputError

PIECE = re.compile(r"\\(?P<escaped>[()\[\]\\])|(?P<open>[(\[])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<close>[)\]])"
                   r"|[^\\()\[\]:]+|[\\:]")
ROUND, SQUARE = 1.1, 1 / 1.1
BREAK = None                                                 # stands for a text
LONGEST = 20_000                                             # characters of a prompt


def check_text(prompt):
    """Raises InputError for a prompt that is endless, or no Unicode, such as a wrongly decoded argument."""
    if len(prompt) > LONGEST:
        raise InputError(f"the prompt has {len(prompt):,} characters; minisd reads at most {LONGEST:,}")
    try:
        prompt.encode()
    except UnicodeEncodeError as e:
        raise InputError(f"the prompt {prompt[:80]!r} is not valid text: {e.reason}; pass it as UTF-8") from e


def parse(prompt):
    """prompt -> [(text or BREAK, weight), ...], neighbours of the same weight joined; brackets left open close at the end."""
    texts, ranges = [], []                                   # ranges: (first text, the one after the last, what it counts)
    opened = {"(": [], "[": []}                              # where each bracket begins in `texts`
    for piece in PIECE.finditer(prompt):
        text = piece[0]
        if piece["open"]:
            opened[text].append(len(texts))
        elif piece["weight"] and opened["("]:
            ranges.append((opened["("].pop(), len(texts), float(piece["weight"])))
        elif text == ")" and opened["("]:
            ranges.append((opened["("].pop(), len(texts), ROUND))
        elif text == "]" and opened["["]:
            ranges.append((opened["["].pop(), len(texts), SQUARE))
        elif piece["escaped"]:
            texts.append(piece["escaped"])
        else:
            first, *others = re.split(r"\bBREAK\b", text)
            texts += [first.rstrip() if others else first]
            for i, other in enumerate(others):
                texts += [BREAK, other.strip() if i < len(others) - 1 else other.lstrip()]
    left_open = [(start, bracket) for bracket, starts in opened.items() for start in starts]
    ranges += [(start, len(texts), ROUND if bracket == "(" else SQUARE) for start, bracket in left_open]
    weights = np.ones(len(texts))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start, end, counts in ranges:
            weights[start:end] *= counts
    joined = []
    for text, weight in zip(texts, weights.tolist()):
        if text is BREAK:
            joined.append((BREAK, 1.0))
        elif joined and joined[-1][0] is not BREAK and joined[-1][1] == weight:
            joined[-1][0].append(text)
        elif text:
            joined.append(([text], weight))
    return [(text if text is BREAK else "".join(text), weight) for text, weight in joined] or [("", 1.0)]
