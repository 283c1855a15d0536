"""What a prompt says besides its words, as AUTOMATIC1111's web UI reads it: weights and BREAK.

(word) counts 1.1 times as much, (word:1.3) 1.3 times, [word] 1/1.1 times; brackets nest and multiply; \\( \\) \\[ \\] \\\\ are the
characters themselves; BREAK begins a new chunk (chunks.py)."""
import re

PIECE = re.compile(r"\\(?P<escaped>[()\[\]\\])|(?P<open>[(\[])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<close>[)\]])"
                   r"|[^\\()\[\]:]+|[\\:]")
ROUND, SQUARE = 1.1, 1 / 1.1
BREAK = None                                                 # stands for a text


def parse(prompt):
    """prompt -> [(text or BREAK, weight), ...], neighbours of the same weight joined; brackets left open close at the end."""
    found, open_brackets = [], []                                    # open_brackets: (bracket, where it starts in `found`)

    def close(bracket, weight):
        k = max(i for i, (b, _) in enumerate(open_brackets) if b == bracket)
        for item in found[open_brackets.pop(k)[1]:]:
            item[1] *= weight

    for piece in PIECE.finditer(prompt):
        text, kinds = piece[0], {bracket for bracket, _ in open_brackets}
        if piece["open"]:
            open_brackets.append((text, len(found)))
        elif piece["weight"] and "(" in kinds:
            close("(", float(piece["weight"]))
        elif piece["close"] and {")": "(", "]": "["}[text] in kinds:
            close(*(("(", ROUND) if text == ")" else ("[", SQUARE)))
        else:
            parts = [piece["escaped"]] if piece["escaped"] else re.split(r"\s*\bBREAK\b\s*", text)
            for i, part in enumerate(parts):
                found += [[BREAK, 1.0], [part, 1.0]] if i else [[part, 1.0]]
    while open_brackets:
        close(open_brackets[-1][0], ROUND if open_brackets[-1][0] == "(" else SQUARE)
    joined = []
    for text, weight in found:
        if joined and text is not BREAK and joined[-1][0] is not BREAK and joined[-1][1] == weight:
            joined[-1] = joined[-1][0] + text, weight
        elif text != "":
            joined.append((text, weight))
    return joined or [("", 1.0)]
