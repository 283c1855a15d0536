"""The neural networks, as functions over a checkpoint's tree of weights: mathematics alone, no array library, no file, no device.

clip.py              token ids -> a vector per token
unet.py              noisy latent, timestep, vectors -> predicted noise
controlnet.py        what a control image adds to that
vae.py               latents <-> pixels;  taesd.py the same, small and quick
nn.py                the layers they are made of, and the trace of what each computes
*_config.py          what the weights do not say: each network's config.json, checked with config.py"""
