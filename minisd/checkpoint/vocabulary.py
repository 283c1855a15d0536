"""A tokenizer on disk: what a diffusers folder says of it, as the arguments of prompt.tokenizer.Tokenizer."""
from itertools import chain
from pathlib import Path

from ..errors import CheckpointError
from .files import read_json, read_text

SPECIAL = "unk_token", "bos_token", "eos_token", "pad_token"


def read_vocabulary(folder, length=None):
    """From a tokenizer's folder: see contents().  Raises CheckpointError if it holds no CLIP tokenizer, or one of other contents."""
    try:
        found = contents(Path(folder), length)
        names = [t if isinstance(t, str) else t["content"] for t in (*found["special"].values(), *found["added"])]
        texts, ids = chain(*found["merges"], names), found["vocab"].values()
        if {*map(type, texts)} - {str} or {*map(type, ids)} - {int} or any(len(pair) != 2 for pair in found["merges"]):
            raise TypeError("a token, a merge or an id of another kind")
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as e:
        raise CheckpointError(f"{folder}: no CLIP tokenizer, or a damaged one ({e}); copy or download it again") from e
    return found


def contents(folder, length):
    """From vocab.json and merges.txt, or tokenizer.json; the special tokens from special_tokens_map.json where there is one, else from
    tokenizer_config.json -> {"vocab": {token: id}, "merges": [(left, right)], "special": ..., "length": ..., "added": [...]}

    length: what the text encoder can take, if less"""
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
    special = {k: special_map.get(k) or config.get(k) for k in SPECIAL if special_map.get(k) or config.get(k)}
    limits = [n for n in (config.get("model_max_length"), length) if n is not None and n < 1e6]      # larger ones mean none
    if not all(isinstance(n, int) and n > 2 for n in limits):
        raise CheckpointError(f"{folder}/tokenizer_config.json: model_max_length is {config.get('model_max_length')!r}; it must be a whole "
                              "number above 2, 77 as a rule")
    return dict(vocab=vocab, merges=merges, special=special, length=min(limits, default=77),
                added=[t for _, t in sorted(added.items())])
