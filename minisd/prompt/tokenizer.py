"""Prompts -> token ids (B,M), by CLIP's byte-level BPE.   Radford et al. 2021, section 2.4; Sennrich et al. 2016.

The merging is the tokenizers library's; here is how CLIP sets it up."""
import functools
import gzip
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ..errors import CheckpointError
from .syntax import check_text

# Contractions, runs of letters, single digits, runs of anything else that is not space.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

SPECIAL = {"unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}


class Tokenizer:
    """bos, the prompt's tokens, eos, and padding up to `length`.

    vocab {token: id}, merges [(left, right)]: None for CLIP's own
    special: {"bos_token", "eos_token", "pad_token", "unk_token"} -> a string, or the dictionary that a tokenizer folder stores for one;
    those absent are CLIP's own.  length: M, start and end included;  added: further tokens"""

    def __init__(self, vocab=None, merges=None, special=None, length=77, added=()):
        special = {**SPECIAL, **(special or {})}
        if vocab is None:
            vocab, merges = packaged_vocabulary()
        try:
            model = models.BPE(vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>",
                               fuse_unk=False, unk_token=content(special["unk_token"]))
            tokens = [added_token(t) for t in special.values()]
            more = [added_token(t) for t in added if content(t) not in map(content, special.values())]
        except Exception as e:                               # the library raises nothing more exact
            raise CheckpointError(f"the tokenizer's vocabulary, merges and special tokens do not go together: {e}") from e
        self.bpe = tokenizers.Tokenizer(model)
        self.bpe.normalizer = normalizers.Sequence([
            normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()])
        self.bpe.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False)])
        self.bpe.add_special_tokens(tokens)
        self.bpe.add_tokens(more)
        self.length, self.size = length, max([*vocab.values(), *self.bpe.get_added_tokens_decoder()]) + 1
        self.bos, self.eos, self.pad = (self.bpe.token_to_id(content(special[k]))
                                        for k in ("bos_token", "eos_token", "pad_token"))
        self.learned = {}                                    # first id of a word of its own -> all its ids
        self.comma = self.bpe.token_to_id(",</w>")

    def __call__(self, prompts):
        """list of B strings -> (ids (B,M) int64, what did not fit of each: list of strings, "" where all did).

        Raises InputError for text that is not Unicode, such as a wrongly decoded argument."""
        rows, cut = [], []
        for prompt in prompts:
            ids, starts = self.encoded(prompt)
            rows.append(self.framed(ids[:self.length - 2]))
            cut.append(prompt[starts[self.length - 2]:].strip() if len(ids) > self.length - 2 else "")
        return np.array(rows, np.int64), cut

    def ids(self, text):
        """The text's own tokens, however many."""
        return self.encoded(text)[0]

    def text_of(self, token):
        """The text that a token stands for, without the mark of a word's end; bytes that are no text alone become U+FFFD."""
        name = self.bpe.id_to_token(token)
        if name is None or token in self.bpe.get_added_tokens_decoder():
            return name or ""
        return decoders.ByteLevel().decode([name.removesuffix("</w>")])

    def learn(self, word, count):
        """A new word of so many tokens -> their ids.  Raises CheckpointError if the word is a token already."""
        check_text(word)
        names = [word, *(f"{word}_{k}" for k in range(1, count))]
        known = [n for n in names if self.bpe.token_to_id(n) is not None]
        if known or not word.strip():
            raise CheckpointError(f"{word!r} cannot be a new word: {'it is empty' if not known else f'{known[0]!r} is a token already'}; "
                                  "give it another name")
        self.bpe.add_tokens([tokenizers.AddedToken(n, normalized=True) for n in names])
        ids = [self.bpe.token_to_id(n) for n in names]
        self.learned[ids[0]] = ids
        return ids

    def taught(self):
        """The words that learn() added."""
        return [self.bpe.id_to_token(first) for first in self.learned]

    def framed(self, ids):
        """At most length - 2 tokens -> as many as `length`: bos, these, eos, padding."""
        return [self.bos, *ids, self.eos] + [self.pad] * (self.length - 2 - len(ids))

    def encoded(self, text):
        """-> (ids, where in the text each begins)"""
        check_text(text)
        found = self.bpe.encode(text, add_special_tokens=False)
        pairs = [(i, start) for token, (start, _) in zip(found.ids, found.offsets) for i in self.learned.get(token, [token])]
        return [i for i, _ in pairs], [start for _, start in pairs]


@functools.cache
def packaged_vocabulary():
    """CLIP's (vocab {token: id}, merges [(left, right)]): 256 bytes, the same ending a word, 48,894 merges, start and end."""
    lines = gzip.decompress((Path(__file__).parent / "clip" / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1:49152 - 256 - 2 + 1]]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]            # bytes that stand for themselves
    letters = [chr(b) for b in printable] + [chr(256 + k) for k in range(256 - len(printable))]
    tokens = [*letters, *(c + "</w>" for c in letters), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges


def content(token):
    """The token itself, of the string or the dictionary that stands for it."""
    return token["content"] if isinstance(token, dict) else token


def added_token(token):
    """A special token from its stored form; a plain string is matched in the text as it stands."""
    how = token if isinstance(token, dict) else {"normalized": False}
    return tokenizers.AddedToken(content(token), **{k: how.get(k, False) for k in ("single_word", "lstrip", "rstrip")},
                                 normalized=how.get("normalized", False))
