"""What the picture is to be, after each step: by TAESD, or by the colours that the latents' numbers stand for."""
from pathlib import Path

import numpy as np
from PIL import Image

from ..checkpoint import single
from ..errors import CheckpointError, InputError
from ..image import pixels as pictures
from ..networks import taesd
from ..settings import listed


class Preview:
    """Called with each Step, writes a PNG of x0, the clean latent as it is predicted then; several pictures beside each other.

    pipe: a Pipeline;  path: of the PNG;  tiny: TAESD's file or folder, None for the latents' colours."""

    def __init__(self, pipe, path, tiny=None):
        self.path, self.size = Path(path), pipe.vae_config.factor
        self.weights = self.config = self.colours = None
        if tiny is not None:
            component = single.open_vae(tiny, 1.0)
            if not isinstance(component.config, taesd.TinyConfig):
                raise InputError(f"{tiny}: no TAESD but another vae; --vae is the option for that")
            if component.config.factor != self.size or component.config.latent_channels != pipe.vae_config.latent_channels:
                raise InputError(f"{tiny}: a TAESD for latents of {component.config.latent_channels} channels, {component.config.factor} "
                                 f"pixels wide; this model's have {pipe.vae_config.latent_channels} and are {self.size} wide")
            missing, _ = component.check()
            if missing:
                raise CheckpointError(f"{component.place}: {len(missing)} missing: {listed(missing)}; copy or download it again")
            self.weights, self.config = component.weights(), component.config
        else:
            self.colours = colours(pipe)

    def __call__(self, step):
        x0 = np.asarray(step.x0, np.float32)
        if self.weights is not None:
            rows = pictures.to_pil(pictures.to_unit(taesd.decode(self.weights, x0, self.config)))
        else:
            rgb = np.concatenate([x0, np.ones_like(x0[..., :1])], axis=-1) @ self.colours
            small = pictures.to_pil(rgb.clip(0, 1).astype(np.float32))
            rows = [p.resize((p.width * self.size, p.height * self.size), Image.Resampling.BILINEAR) for p in small]
        canvas = Image.new("RGB", (sum(p.width for p in rows), rows[0].height))
        for k, p in enumerate(rows):
            canvas.paste(p, (k * p.width, 0))
        pictures.save_png(canvas, self.path)


def colours(pipe, patches=8, side=4):
    """The matrix (C+1,3) that brings a latent and a 1 nearest to its colour: least squares over what the model's own vae makes of
    patches that are each of one latent, drawn at random."""
    random, c = np.random.default_rng(0), pipe.vae_config
    drawn = random.standard_normal((patches, patches, c.latent_channels)).astype(np.float32)
    pixels = pipe.decode(drawn.repeat(side, axis=0).repeat(side, axis=1)[None])
    across, margin = side * c.factor, c.factor                                       # a patch's edge is mixed with its neighbours
    inner = pixels[0].reshape(patches, across, patches, across, 3)[:, margin:-margin, :, margin:-margin].mean((1, 3))
    known = np.concatenate([drawn.reshape(-1, c.latent_channels), np.ones((patches**2, 1))], axis=1)
    return np.linalg.lstsq(known, inner.reshape(-1, 3), rcond=None)[0]
