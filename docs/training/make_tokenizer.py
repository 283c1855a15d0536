"""Makes a CLIP-style tokenizer of 4,096 tokens from the data set's words: 256 bytes, the same ending a word, merges, start, end.

    python make_tokenizer.py --data icons128.tar --out tokenizer"""
import argparse
import json
import tarfile
from pathlib import Path

from concepts import WORDS, plural, vocabulary
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from minisd.prompt.tokenizer import WORDS as PATTERN

SIZE, LENGTH = 4096, 32
SPECIAL = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}


def letters():
    """The 256 characters that stand for bytes: printable ones for themselves, the others moved up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + k) for k in range(256 - len(printable))]


def merges(words):
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.train_from_iterator(words, trainers.BpeTrainer(vocab_size=SIZE - 2, initial_alphabet=letters(), end_of_word_suffix="</w>",
                                                       special_tokens=[], show_progress=False))
    found = json.loads(bpe.to_str())["model"]["merges"]
    return [m if isinstance(m, str) else " ".join(m) for m in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    with tarfile.open(a.data) as tar:
        concepts = json.load(tar.extractfile("meta.json"))["concepts"]
    words = [w for c in concepts for w in [c["label"]] * 8 + c["tags"]]
    words += [w for names in WORDS.values() for name in names for w in (name, plural(name))] * 20 + vocabulary() * 100
    tokens = [*letters(), *(c + "</w>" for c in letters())]
    kept = []
    for merge in merges(words):
        token = merge.replace(" ", "")
        if token not in tokens and len(tokens) < SIZE - 2:
            tokens.append(token)
            kept.append(merge)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False), encoding="utf-8")
    (a.out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(kept) + "\n", encoding="utf-8")
    (a.out / "special_tokens_map.json").write_text(json.dumps(SPECIAL))
    (a.out / "tokenizer_config.json").write_text(json.dumps({**SPECIAL, "model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"}))
    print(f"{len(tokens)} tokens in {a.out}")


if __name__ == "__main__":
    main()
