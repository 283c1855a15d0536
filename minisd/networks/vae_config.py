"""What the weights of an autoencoder do not say: the config.json of a vae, or of TAESD, checked."""
from dataclasses import dataclass

from ..errors import CheckpointError
from .config import listed, number, require, whole


@dataclass(frozen=True)
class VAEConfig:
    groups: int = 32
    scaling_factor: float = 0.18215         # the unet's latents are the encoder's times this
    levels: int = 4                         # each but the last halves the picture
    layers: int = 2                         # resnets per level of the encoder, one more in the decoder
    latent_channels: int = 4
    quant: bool = True                      # has quant_conv and post_quant_conv
    post_quant: bool = True
    in_float32: bool = False                # whether its numbers run beyond float16, as Stable Diffusion XL's do

    @classmethod
    def read(cls, c):
        """From an AutoencoderKL's config.json.  Raises CheckpointError for a network that minisd does not know."""
        require("vae", c, act_fn=("silu",), mid_block_add_attention=(True,), shift_factor=(None,), latents_mean=(None,),
                latents_std=(None,))
        for kind in [*listed("vae", c, "down_block_types"), *listed("vae", c, "up_block_types")]:
            require("vae", {"block type": kind}, **{"block type": ("DownEncoderBlock2D", "UpDecoderBlock2D")})
        scaling = number("vae", c, "scaling_factor", 0.18215)
        if scaling == 0:
            raise CheckpointError("vae/config.json: scaling_factor is 0; Stable Diffusion 1 and 2 have 0.18215")
        return cls(groups=whole("vae", c, "norm_num_groups", 32), scaling_factor=scaling,
                   levels=len(listed("vae", c, "block_out_channels")), layers=whole("vae", c, "layers_per_block", 1),
                   latent_channels=whole("vae", c, "latent_channels", 4), quant=bool(c.get("use_quant_conv", True)),
                   post_quant=bool(c.get("use_post_quant_conv", True)), in_float32=bool(c.get("force_upcast", True)))

    @property
    def factor(self):
        """How many pixels a latent position is wide."""
        return 2 ** (self.levels - 1)

    @property
    def moments(self):
        """Channels that encode() gives."""
        return 2 * self.latent_channels

    def counts(self):
        """{path of a list of layers: how many this network has}, to hold a checkpoint against."""
        found = {}
        for blocks, sampler, layers in (("encoder.down_blocks", "downsamplers", self.layers),
                                        ("decoder.up_blocks", "upsamplers", self.layers + 1)):
            found[blocks] = self.levels
            for i in range(self.levels):
                found[f"{blocks}.{i}.resnets"] = layers
                found[f"{blocks}.{i}.{sampler}"] = int(i < self.levels - 1)
        return {**found, **{f"{half}.mid_block.{part}": k for half in ("encoder", "decoder")
                            for part, k in (("resnets", 2), ("attentions", 1))}}


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
