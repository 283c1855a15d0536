"""Trains the VAE of the shipped model on collages of icons, in plain torch on diffusers' AutoencoderKL.

    python train_vae.py --data icons128.tar --out vae --minutes 60

The loss is L1 on every level of a Laplacian pyramid, with weight on flat colour, and a little KL.  At first the encoder is
also asked that latents 0 to 2 be a thumbnail of the picture, so that colours are right early."""
import argparse
import math
import random
import threading
import time
from pathlib import Path
from queue import Queue

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from scenes import Scenes

VAE = dict(block_out_channels=(32, 64, 96), layers_per_block=1, norm_num_groups=16, latent_channels=4,
           down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3)


def pyramid_loss(found, wanted):
    """Burt & Adelson 1983: each level's edges on their own, the coarser ones weighing more; then the colour of areas."""
    difference, total = found - wanted, (found - wanted).abs().mean()
    rest = difference
    for k in range(4):
        coarse = F.avg_pool2d(rest, 2)
        total = total + (rest - F.interpolate(coarse, scale_factor=2.0)).abs().mean() * 2**k * .5
        rest = coarse
    return total + 4 * F.avg_pool2d(difference, 8).abs().mean()


def pictures(a):
    """Batches of collages, rendered in a thread of their own; a third are training scenes."""
    queue = Queue(8)

    def render():
        scenes, rng = Scenes(a.data, every_icon=True), random.Random(time.time_ns())
        while True:
            drawn = [scenes.collage(rng) if rng.random() < .67 else scenes.draw(rng) for _ in range(a.batch)]
            queue.put(np.stack([scenes.render(s, a.size) for s in drawn]))

    threading.Thread(target=render, daemon=True).start()
    while True:
        yield torch.from_numpy(queue.get()).permute(0, 3, 1, 2).contiguous().to(a.device) * 2 - 1


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--size", type=int, default=64)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--rate", type=float, default=1e-3)
    p.add_argument("--kl", type=float, default=2e-6)
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    vae = AutoencoderKL(sample_size=a.size, **VAE).to(a.device).train()
    vae.set_attn_processor(AttnProcessor())
    weights = list(vae.parameters())
    average = [w.detach().clone() for w in weights]
    optimizer = torch.optim.AdamW(weights, a.rate, betas=(.9, .99), weight_decay=1e-3)
    source, start, told, step = pictures(a), time.time(), 0.0, 0
    held = torch.cat([next(source) for _ in range(4)])       # to measure on; the random stream never repeats them
    while (share := (time.time() - start) / 60 / a.minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = a.rate * min(1, (step + 1) / 50) * (1 if share < .5 else max(.03, .5 + .5 * math.cos(math.pi * (2 * share - 1))))
        x = next(source)
        with torch.autocast(a.device, torch.bfloat16):
            latent = vae.encode(x).latent_dist
            out = vae.decode(latent.sample()).sample
        mean, logvar = latent.mean.float(), latent.logvar.float()
        kl = .5 * (mean**2 + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
        thumbnail = F.avg_pool2d(x, a.size // mean.shape[-1])
        loss = pyramid_loss(out.float(), x) + a.kl * kl + 4 * max(.02, 1 - 2 * share) * (mean[:, :3] - thumbnail).pow(2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(average, [w.detach() for w in weights], 1 - min(.999, (step + 1) / (step + 10)))
        if time.time() - told > 60:
            told = time.time()
            print(f"{share * a.minutes:6.1f} min  step {step}  pictures {step * a.batch:,}  loss {float(loss.detach()):.4f}", flush=True)
    with torch.no_grad():
        for w, mean in zip(weights, average):
            w.copy_(mean)
        vae.eval()
        z = torch.cat([vae.encode(part).latent_dist.mean for part in held.split(16)])
        out = torch.cat([vae.decode(part).sample for part in z.split(16)]).clamp(-1, 1)
    decibels = float((-10 * torch.log10(((out - held) / 2).pow(2).mean((1, 2, 3)))).mean())
    vae.register_to_config(scaling_factor=round(1 / float(z.std()), 5))
    vae.save_pretrained(a.out)
    print(f"done: {step * a.batch:,} pictures, {decibels:.1f} dB, scaling factor {vae.config.scaling_factor}")


if __name__ == "__main__":
    main()
