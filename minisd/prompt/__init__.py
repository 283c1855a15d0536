"""What a prompt says, down to token ids and their weights.

schedule.py    [from:to:when], [one|other] and AND: what a prompt says at each step, as AUTOMATIC1111's web UI reads it
syntax.py      (weights:1.2) and BREAK, likewise
tokenizer.py   text -> token ids, by CLIP's byte-level BPE; its vocabulary lies in clip/
chunks.py      prompts of any length, cut into as many tokens as the text encoder reads"""
