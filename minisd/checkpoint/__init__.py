"""Models on disk -> networks' configurations and trees of weights.  Nothing is ever unpickled.

hub.py          a path, the shipped model, or a hub id, which is downloaded
files.py        safetensors, read one array at a time; JSON; text
weights.py      the weights as a tree:  p.down_blocks[0].resnets[1].conv1.weight
component.py    one network: its config.json, and its weights by the names that the networks know
folder.py       a model in a diffusers folder;  vocabulary.py its tokenizers
single.py       a model in one file, with the names of CompVis' code: ldm.py;  families.py what family it is and how it is configured
shapes.py       a dry run on shapes alone, which finds what is missing or does not fit
lora.py         LoRAs, added to weights;  inversion.py textual inversions, added to the vocabulary
kinds.py        what any safetensors file is"""
