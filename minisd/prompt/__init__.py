"""What a prompt says, down to token ids and their weights.

syntax.py      (weights:1.2) and BREAK, as AUTOMATIC1111's web UI reads them
tokenizer.py   text -> token ids, by CLIP's byte-level BPE; its vocabulary lies in clip/
chunks.py      prompts of any length, cut into as many tokens as the text encoder reads"""
