"""Prompts -> token ids (B,M), by CLIP's byte-level BPE.   Radford et al. 2021, section 2.4; Sennrich et al. 2016.

The merging is the tokenizers library's; here is how CLIP sets it up and what a Stable Diffusion folder says."""
import functools
import gzip
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from ..checkpoint.files import read_json, read_text
from ..errors import CheckpointError, InputError

# Contractions, runs of letters, single digits, runs of anything else that is not space.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """bos, the prompt's tokens, eos, and padding up to `length`.

    vocab {token: id}, merges [(left, right)]; special: {"bos_token": ..., "eos_token", "pad_token", "unk_token"}, each
    a string or the dictionary that a tokenizer folder stores for one."""

    def __init__(self, vocab, merges, special, length=77, added=()):
        try:
            model = models.BPE(vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>",
                               fuse_unk=False, unk_token=content(special["unk_token"]))
        except Exception as e:                               # the library raises nothing more exact
            raise CheckpointError(f"the tokenizer's vocabulary and merges do not go together: {e}") from e
        self.bpe = tokenizers.Tokenizer(model)
        self.bpe.normalizer = normalizers.Sequence([
            normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()])
        self.bpe.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False)])
        self.bpe.add_special_tokens([added_token(t) for t in special.values()])
        self.bpe.add_tokens([added_token(t) for t in added])
        self.length, self.size = length, self.bpe.get_vocab_size()
        self.bos, self.eos, self.pad = (self.bpe.token_to_id(content(special[k]))
                                        for k in ("bos_token", "eos_token", "pad_token"))
        self.learned = {}                                    # first id of a word of its own -> all its ids
        self.comma = self.bpe.token_to_id(",</w>")

    @classmethod
    def from_folder(cls, folder, length=None):
        """From vocab.json and merges.txt, or tokenizer.json; the special tokens from special_tokens_map.json where
        there is one, else from tokenizer_config.json.  length: what the text encoder can take, if less.

        Raises CheckpointError if the folder holds no CLIP tokenizer."""
        folder = Path(folder)
        config, special_map = read_json(folder / "tokenizer_config.json"), read_json(folder / "special_tokens_map.json")
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            vocab = read_json(folder / "vocab.json")
            lines = read_text(folder / "merges.txt").split("\n")
            merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
            added = {}
        else:
            whole = read_json(folder / "tokenizer.json")
            if whole.get("model", {}).get("type") != "BPE":
                raise CheckpointError(f"{folder}: no CLIP tokenizer; expected vocab.json and merges.txt, or tokenizer.json")
            vocab = whole["model"]["vocab"]
            merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in whole["model"]["merges"]]
            added = {t["id"]: t for t in whole.get("added_tokens", [])}
        added.update({i: {"content": t} for t, i in read_json(folder / "added_tokens.json").items()})
        added.update({int(i): t for i, t in config.get("added_tokens_decoder", {}).items()})
        special = {"unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
                   "pad_token": "<|endoftext|>"}
        special = {k: special_map.get(k) or config.get(k) or v for k, v in special.items()}
        limits = [n for n in (config.get("model_max_length"), length) if n is not None and n < 1e6]
        return cls(vocab, merges, special, int(min(limits, default=77)),
                   [t for i, t in sorted(added.items()) if content(t) not in map(content, special.values())])

    @classmethod
    def packaged(cls, pad=None, length=77):
        """CLIP's own, from the vocabulary that comes with minisd, for checkpoints that have none.  pad: the padding token, if not eos."""
        start, end = "<|startoftext|>", "<|endoftext|>"
        return cls(*packaged_vocabulary(), dict(unk_token=end, bos_token=start, eos_token=end, pad_token=pad or end), length)

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

    def learn(self, word, count):
        """A new word of so many tokens -> their ids.  Raises CheckpointError if the word is a token already."""
        names = [word, *(f"{word}_{k}" for k in range(1, count))]
        known = [n for n in names if self.bpe.token_to_id(n) is not None]
        if known or not word.strip():
            raise CheckpointError(f"{word!r} cannot be a new word: {'it is empty' if not known else f'{known[0]!r} is a token already'}; "
                                  "give it another name")
        self.bpe.add_tokens([tokenizers.AddedToken(n, normalized=True) for n in names])
        ids = [self.bpe.token_to_id(n) for n in names]
        self.learned[ids[0]] = ids
        return ids

    def framed(self, ids):
        """At most length - 2 tokens -> as many as `length`: bos, these, eos, padding."""
        return [self.bos, *ids, self.eos] + [self.pad] * (self.length - 2 - len(ids))

    def encoded(self, text):
        """-> (ids, where in the text each begins)"""
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise InputError(f"the prompt {text!r} is not valid text: {e.reason}; pass it as UTF-8") from e
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
    return token["content"] if isinstance(token, dict) else token


def added_token(token):
    """A special token from its stored form; a plain string is matched in the text as it stands."""
    how = token if isinstance(token, dict) else {"normalized": False}
    return tokenizers.AddedToken(content(token), **{k: how.get(k, False) for k in ("single_word", "lstrip", "rstrip")},
                                 normalized=how.get("normalized", False))
