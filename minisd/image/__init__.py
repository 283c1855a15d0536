"""Pictures: what goes in, what comes out, and what they say of themselves.

pixels.py     arrays <-> PIL images, masks, depth maps, sizes
saving.py     PNG, JPEG, WebP, GIF, written whole or not at all
folder.py     a folder for many of them, here or wherever fsspec reaches
metadata.py   a picture's settings, as AUTOMATIC1111's web UI writes them
grid.py       several pictures in one
canny.py      edges, for ControlNets
tiles.py      large pictures in overlapping pieces"""
