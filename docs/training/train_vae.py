"""Trains the VAE of the shipped model on collages of icons, in plain torch on diffusers' AutoencoderKL.

    python train_vae.py --data icons128.tar --out vae --steps 12000

The loss is L1 on every level of a Laplacian pyramid, with weight on flat colour, and a little KL.  At first the encoder is
also asked that latents 0 to 2 be a thumbnail of the picture, so that colours are right early.  Latents beyond 3 cost: without
that it learns to keep a few huge ones in a corner, which tell the decoder's norms of the whole picture and show as a spot.
--start takes the first weights from a folder that this wrote."""
import argparse

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from scenes import Scenes
from training import Run, add_arguments, prepared, rendered

VAE = dict(block_out_channels=(16, 32, 64, 128), layers_per_block=1, norm_num_groups=16, latent_channels=4,
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
    p.add_argument("--kl", type=float, default=2e-6)
    p.add_argument("--start", help="a vae to take the first weights from")
    a = p.parse_args()
    vae = AutoencoderKL.from_pretrained(a.start, torch_dtype=torch.float32) if a.start else AutoencoderKL(sample_size=a.size, **VAE)
    vae = prepared(vae, a)
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
            out = vae.decode(latent.sample()).sample
        mean, logvar = latent.mean.float(), latent.logvar.float()
        kl = .5 * (mean**2 + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
        thumbnail = F.avg_pool2d(x, a.size // mean.shape[-1])
        like = 4 * max(.02, 1 - 2 * share) * (mean[:, :3] - thumbnail).pow(2).mean()
        run.learn(pyramid_loss(out.float(), x) + a.kl * kl + like + 10 * F.relu(mean.abs() - 3).pow(2).mean())


if __name__ == "__main__":
    main()
