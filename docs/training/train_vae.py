"""Trains the VAE of the shipped model on collages of icons, in plain torch on diffusers' AutoencoderKL.

    python train_vae.py --data icons128.tar --out vae --steps 4200

The loss is L1 on every level of a Laplacian pyramid, with weight on flat colour.  Noise is added to the latents, of a spread that is
given: with the KL term in its place the spread fell to 0.004, so that the decoder would have been lost with what a unet gives, and one
latent of four was never used.  At first the encoder is also asked that latents 0 to 2 be a thumbnail of the picture, so that colours
are right early; for longer, and one latent alone would be left for everything else.  Latents beyond 3 cost, so that a unet finds none
that are rare and huge."""
import argparse
import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from scenes import Scenes
from training import Run, add_arguments, prepared, rendered

# Four groups: with sixteen a group of the widest level is one channel, whose mean and size the norm takes away.  A spot in a corner, by
# which the network seemed to keep them, faded with four (Karras et al. 2020, section 2, of StyleGAN's droplets).
VAE = dict(block_out_channels=(16, 32, 64, 128), layers_per_block=1, norm_num_groups=4, latent_channels=4,
           down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)


def pyramid_loss(found, wanted):
    """Burt & Adelson 1983: each level's edges on their own, the coarser ones weighing more; then the colour of areas."""
    difference, total = found - wanted, (found - wanted).abs().mean()
    rest = difference
    for k in range(4):
        coarse = F.avg_pool2d(rest, 2)
        total = total + (rest - F.interpolate(coarse, scale_factor=2.0)).abs().mean() * 2**k * .5
        rest = coarse
    return total + 4 * F.avg_pool2d(difference, 8).abs().mean()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(p, batch=8, rate=2e-3)
    p.add_argument("--noise", type=float, default=.1, help="spread of what is added to latents, as a unet's will be off by something")
    a = p.parse_args()
    vae = prepared(AutoencoderKL(sample_size=a.size, **VAE), a)
    scenes = Scenes(a.data, every_icon=True)

    def pictures(rng, n):                                    # four in five are training scenes
        drawn = [scenes.collage(rng) if rng.random() < .2 else scenes.draw(rng) for _ in range(n)]
        return torch.from_numpy(np.stack([scenes.render(s, a.size) for s in drawn])).permute(0, 3, 1, 2).contiguous() * 2 - 1

    queue = rendered(8, lambda rng: pictures(rng, a.batch))
    held = torch.cat([queue.get() for _ in range(96 // a.batch)]).to(a.device)       # to measure on; never drawn again

    def save():
        vae.eval()
        z = torch.cat([vae.encode(part).latent_dist.mean for part in held.split(16)])
        out = torch.cat([vae.decode(part).sample for part in z.split(16)]).clamp(-1, 1)
        vae.train()
        decibels = float((-10 * torch.log10(((out - held) / 2).pow(2).mean((1, 2, 3)))).mean())
        vae.register_to_config(scaling_factor=round(1 / float(z.std()), 5))
        vae.save_pretrained(a.out)
        run.tell(f"{decibels:.2f} dB on {len(held)} pictures, scaling factor {vae.config.scaling_factor}")

    run = Run(a, {"vae": vae}, save, decay=.998)
    for share in run.steps():
        x = queue.get().to(a.device, memory_format=torch.channels_last)
        with torch.autocast(a.device, torch.bfloat16, enabled=a.bfloat16):
            latent = vae.encode(x).latent_dist
            out = vae.decode(latent.mean + a.noise * torch.randn_like(latent.mean)).sample
        mean, logvar = latent.mean.float(), latent.logvar.float()
        spread = (.5 * logvar - math.log(a.noise)).pow(2).mean()                       # what sample() adds is the same
        thumbnail = F.avg_pool2d(x, a.size // mean.shape[-1])
        like = 4 * max(0, 1 - 2.5 * share) * (mean[:, :3] - thumbnail).pow(2).mean()
        run.learn(pyramid_loss(out.float(), x) + spread + like + 10 * F.relu(mean.abs() - 3).pow(2).mean())


if __name__ == "__main__":
    main()
