"""TAESD, a picture codec of 1.2 million numbers in place of the vae's 84 million: quick to decode, less exact.

Pixels (B,8H,8W,3) in [-1,1] <-> latents (B,H,W,4), scaled as the unet has them.   Ollin Boer Bohan 2023, https://github.com/madebyollin/taesd"""
from dataclasses import dataclass

from ..backend import ops
from .config import listed, require, whole
from .nn import conv2d, plain_conv2d, tap


@dataclass(frozen=True)
class TinyConfig:
    latent_channels: int = 4
    encoder_blocks: tuple = (1, 3, 3, 3)    # per level, each of which but the first halves the picture
    decoder_blocks: tuple = (3, 3, 3, 1)
    scaling_factor: float = 1.0             # the unet's latents as they are

    @classmethod
    def read(cls, c):
        """From an AutoencoderTiny's config.json.  Raises CheckpointError for a network that minisd does not know."""
        require("vae", c, act_fn=("relu",), upsampling_scaling_factor=(2,), latent_magnitude=(3, 3.0), latent_shift=(0.5,),
                scaling_factor=(1.0, 1), shift_factor=(0.0, 0, None), in_channels=(3,), out_channels=(3,))
        blocks = [tuple(listed("vae", c, k)) if k in c else d for k, d in (("num_encoder_blocks", cls.encoder_blocks),
                                                                         ("num_decoder_blocks", cls.decoder_blocks))]
        return cls(whole("vae", c, "latent_channels", 4), *blocks)

    @property
    def factor(self):
        """How many pixels a latent position is wide."""
        return 2 ** (len(self.encoder_blocks) - 1)

    @property
    def moments(self):
        """Channels that encode() gives: the latent's own, for it has no distribution."""
        return self.latent_channels

    def counts(self):
        """{path of a list of layers: how many this network has}, to hold a checkpoint against.  Rectifiers have no weights."""
        return {"encoder.layers": sum(self.encoder_blocks) + len(self.encoder_blocks) + 1,
                "decoder.layers": sum(self.decoder_blocks) + len(self.decoder_blocks) + 1}


def block(p, x):
    """(B,H,W,C) -> (B,H,W,C): three convolutions beside the way, and a rectifier."""
    h = conv2d(p.conv[2], ops.relu(conv2d(p.conv[0], x, pad=(1, 1))), pad=(1, 1))
    h = conv2d(p.conv[4], ops.relu(h), pad=(1, 1))
    return tap(p, ops.relu(h + (plain_conv2d(p.skip, x) if "skip" in p else x)))


def encode(p, x, cfg):
    """Pixels (B,8H,8W,3) in [-1,1] -> latents (B,H,W,4)."""
    layers = list(p.encoder.layers)
    x = conv2d(layers[0], (x + 1) * 0.5, pad=(1, 1))
    for layer in layers[1:-1]:
        x = block(layer, x) if "conv" in layer else plain_conv2d(layer, x, stride=2, pad=(1, 1))
    return conv2d(layers[-1], x, pad=(1, 1))


def decode(p, latents, cfg):
    """Latents (B,H,W,4) -> pixels (B,8H,8W,3), about [-1,1]."""
    layers = list(p.decoder.layers)
    x = ops.relu(conv2d(layers[0], 3 * ops.tanh(latents / 3), pad=(1, 1)))             # so that no value runs away
    for layer in layers[1:-1]:
        if "conv" in layer:
            x = block(layer, x)
        else:
            H, W = x.shape[1:3]
            x = plain_conv2d(layer, ops.upsample_to(x, (2 * H, 2 * W)), pad=(1, 1))
    return conv2d(layers[-1], x, pad=(1, 1)) * 2 - 1
