"""Prompts that are several, or change from step to step: AND, [from:to:when] and [one|other], as AUTOMATIC1111's web UI reads them.

    [from:to:when]   `from` up to step `when`, then `to`; [to:when] has nothing before, [from::when] nothing after.  `when` is a number
                     of steps, or, written with a point, a share of all of them
    [one|other]      the next one at each step
    one AND other    two prompts at once, whose effects add up; `one :1.5 AND other` weighs them   Liu et al. 2022 (composable diffusion)

What is not one of these stays as it is, for syntax.py to read."""
import re
from dataclasses import dataclass, field

from ..errors import InputError

TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
MOST = 16                                                    # prompts that AND joins
EXTRA_NETWORK = re.compile(r"<\w+:[^<>]+>")


@dataclass(frozen=True)
class Scheduled:
    """[from:to:when].  before, after: lists of parts;  when: as it is written."""
    before: list
    after: list
    when: str

    def at(self, step, steps):
        last = float(self.when) * (steps if "." in self.when else 1)
        return self.before if step <= int(max(-1, min(steps, last))) else self.after


@dataclass(frozen=True)
class Alternating:
    """[one|other|...].  choices: lists of parts."""
    choices: list

    def at(self, step, steps):
        return self.choices[(step - 1) % len(self.choices)]


@dataclass
class Open:
    """A bracket that is not closed yet: its segments, lists of parts, and the separators between them."""
    bracket: str
    segments: list = field(default_factory=lambda: [[]])
    separators: str = ""

    def closed(self):
        """What stands between [ and ], if it is one of the constructs, else None."""
        *before, last = self.segments
        number = last[0].strip() if len(last) == 1 and isinstance(last[0], str) else ""
        if self.separators in (":", "::") and NUMBER.fullmatch(number):
            return Scheduled(before[0] if len(before) == 2 else [], before[-1], number)
        return Alternating(self.segments) if set(self.separators) == {"|"} else None

    def as_text(self, end=""):
        """The same, when it is none."""
        parts = [self.bracket]
        for separator, segment in zip(["", *self.separators], self.segments):
            parts += [separator, segment]
        return [*parts, end]


def parts_of(prompt):
    """prompt -> a list of parts: strings, lists of parts, and what chooses a list of parts by the step."""
    stack = [Open("")]
    for piece in TOKEN.finditer(prompt):
        token, top = piece[0], stack[-1]
        if token in ("(", "["):
            stack.append(Open(token))
        elif token in (":", "|") and top.bracket == "[":
            top.separators += token
            top.segments.append([])
        elif token + top.bracket in (")(", "]["):
            stack.pop()
            stack[-1].segments[-1].append((token == "]" and top.closed()) or top.as_text(token))
        else:                                                # also a bracket that closes none
            top.segments[-1].append(token)
    while len(stack) > 1:
        left_open = stack.pop()
        stack[-1].segments[-1].append(left_open.as_text())
    return stack[0].segments[0]


class Script:
    """What one prompt says at each step.  weights: of the prompts that AND joins.

    reads: whether to read it so, or as one prompt that never changes;  several: whether AND joins prompts, or is a word"""

    def __init__(self, prompt, reads=True, several=True):
        texts = re.split(r"\bAND\b", prompt) if reads and several else [prompt]
        weighed = [weighted(text) for text in texts] if len(texts) > 1 else [(prompt, 1.0)]
        self.weights = [weight for _, weight in weighed]
        self.prompts = [parts_of(text) if reads else [text] for text, _ in weighed]

    def at(self, step, steps):
        """-> the text of each of its prompts at step 1, 2, ... of so many."""
        return [text_of(parts, step, steps) for parts in self.prompts]


@dataclass(frozen=True)
class Says:
    """What the prompts of B pictures say at one step, tuples of strings.

    positives: for each of the prompts that AND joins, (B prompts, B prompts for the last text encoder or None)
    negatives: likewise, (None, None) where there is no negative prompt"""
    positives: tuple
    negatives: tuple


class Scripts:
    """What the prompts of B pictures say at each step.

    prompts, negatives, prompts_2, negatives_2: B strings each, None for none;  reads: as Script has it.
    weights: (P,B) of the P prompts that AND joins at most; a picture with fewer has its first again, with the weight 0"""

    def __init__(self, prompts, negatives, prompts_2=None, negatives_2=None, reads=True):
        self.prompts = [Script(prompt, reads) for prompt in prompts]
        self.others = [others and [Script(prompt, reads, several=False) for prompt in others]
                       for others in (prompts_2, negatives, negatives_2)]
        count = max(len(script.weights) for script in self.prompts)
        if count > MOST:
            raise InputError(f"AND joins {count:,} prompts, each a call of the unet; {MOST} are the most")
        self.weights = [[script.weights[j] if j < len(script.weights) else 0.0 for script in self.prompts] for j in range(count)]

    def at(self, step, steps):
        """-> Says"""
        texts = [script.at(step, steps) for script in self.prompts]
        second, negatives, negatives_2 = (others and tuple(script.at(step, steps)[0] for script in others) for others in self.others)
        return Says(tuple((tuple(t[j] if j < len(t) else t[0] for t in texts), second) for j in range(len(self.weights))),
                    (negatives, negatives_2))


def weighted(text):
    """"a cat :1.2" -> ("a cat", 1.2); 1 where there is no weight."""
    before, colon, last = text.rpartition(":")
    return (before.rstrip(), float(last.strip())) if colon and NUMBER.fullmatch(last.strip()) else (text, 1.0)


def text_of(parts, step, steps):
    found, todo = [], [parts]                                # no recursion: brackets may be nested as deep as a prompt is long
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            found.append(part)
        else:
            todo += reversed(part if isinstance(part, list) else part.at(step, steps))
    return "".join(found)


def without_extra_networks(prompt):
    """-> (the prompt without <lora:name:weight> and the like, which of them there were)"""
    return EXTRA_NETWORK.sub("", prompt), EXTRA_NETWORK.findall(prompt)
