"""What the picture looks like so far, after each step: by TAESD, or by the colours that the latents' channels stand for."""
import numpy as np
from PIL import Image

from ..checkpoint import single
from ..errors import CheckpointError, InputError, listed
from ..image import pixels as images
from ..networks import taesd
from ..networks.vae_config import TinyConfig


class Preview:
    """pipe: a Pipeline;  tiny: TAESD's file or folder, None for the latents' colours.

    Raises InputError or CheckpointError for a TAESD that does not fit the model."""

    def __init__(self, pipe, tiny=None):
        own = pipe.model.vae_config
        self.factor, self.weights = own.factor, None
        if tiny is None:
            self.colours = colours(pipe.model)
            return
        component = single.open_vae(tiny, 1.0)
        if not isinstance(component.config, TinyConfig):
            raise InputError(f"{tiny}: not a TAESD but another vae; --vae is the option for that")
        if (component.config.factor, component.config.latent_channels) != (own.factor, own.latent_channels):
            raise InputError(f"{tiny}: a TAESD for latents of {component.config.latent_channels} channels, {component.config.factor} "
                             f"pixels wide; this model's have {own.latent_channels} and are {own.factor} wide")
        missing, _ = component.check()
        if missing:
            raise CheckpointError(f"{component.place}: {len(missing)} missing: {listed(missing)}; copy or download it again")
        self.weights, self.config = component.weights(), component.config

    def image(self, step):
        """A Step -> a PIL image of x0, the clean latent as predicted then; several pictures side by side."""
        x0 = np.asarray(step.x0, np.float32)
        if self.weights is not None:
            found = images.to_pil(images.to_unit(taesd.decode(self.weights, x0, self.config)))
        else:
            rgb = np.concatenate([x0, np.ones_like(x0[..., :1])], axis=-1) @ self.colours
            small = images.to_pil(rgb.clip(0, 1).astype(np.float32))
            found = [p.resize((p.width * self.factor, p.height * self.factor), Image.Resampling.BILINEAR) for p in small]
        row = Image.new("RGB", (sum(p.width for p in found), found[0].height))
        for k, p in enumerate(found):
            row.paste(p, (k * p.width, 0))
        return row


def colours(model, patches=8, side=4):
    """The matrix (C+1,3) that brings a latent and a 1 nearest to its colour: least squares over what the model's own vae makes of
    patches that are each of one latent, drawn at random."""
    random, c = np.random.default_rng(0), model.vae_config
    drawn = random.standard_normal((patches, patches, c.latent_channels)).astype(np.float32)
    pixels = model.decode(drawn.repeat(side, axis=0).repeat(side, axis=1)[None])
    across, margin = side * c.factor, c.factor                                       # a patch's edge is mixed with its neighbours
    inner = pixels[0].reshape(patches, across, patches, across, 3)[:, margin:-margin, :, margin:-margin].mean((1, 3))
    known = np.concatenate([drawn.reshape(-1, c.latent_channels), np.ones((patches**2, 1))], axis=1)
    return np.linalg.lstsq(known, inner.reshape(-1, 3), rcond=None)[0]
