"""Trains the text encoder and the unet of the shipped model, together, in plain torch on diffusers' and transformers' classes.

    python train.py --data icons128.tar --vae vae --tokenizer tokenizer --out model --minutes 150

The target is v with the weights of min-SNR-5 (Hang et al. 2023), the schedule Stable Diffusion's; one caption in ten is left
empty, for guidance; what is saved is a moving average of the weights.  Scenes are rendered and encoded into a pool of
latents while training goes on, each used --reuse times.  A run that is interrupted goes on from its checkpoint when started
again; --start takes the first weights from a finished model."""
import argparse
import json
import math
import random
import shutil
import threading
import time
from pathlib import Path
from queue import Queue

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from scenes import Scenes, vocabulary
from transformers import CLIPTextConfig, CLIPTextModel

from minisd.checkpoint.vocabulary import read_vocabulary
from minisd.prompt.tokenizer import Tokenizer

TEXT = dict(hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, hidden_act="quick_gelu",
            max_position_embeddings=32)
UNET = dict(block_out_channels=(64, 96, 128), layers_per_block=1, cross_attention_dim=128, norm_num_groups=16, attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), in_channels=4, out_channels=4)
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction")
INDEX = {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
         "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
         "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None],
         "feature_extractor": [None, None], "requires_safety_checker": False}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="icons128.tar")
    p.add_argument("--vae", required=True, help="folder that train_vae.py wrote")
    p.add_argument("--tokenizer", required=True, help="folder that make_tokenizer.py wrote")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--start", type=Path, help="a model to take the first weights from")
    p.add_argument("--minutes", type=float, default=150)
    p.add_argument("--size", type=int, default=64, help="side of a picture, pixels")
    p.add_argument("--batch", type=int, default=48)
    p.add_argument("--rate", type=float, default=8e-4)
    p.add_argument("--reuse", type=int, default=16)
    p.add_argument("--pool", type=int, default=32768)
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


class Pool:
    """Latents of rendered scenes and their token ids, the oldest replaced by new ones."""

    def __init__(self, a, vae, tokenizer):
        self.a, self.vae, self.tokenizer = a, vae, tokenizer
        side = a.size // 2 ** (len(vae.config.block_out_channels) - 1)
        self.z = torch.zeros(a.pool, 4, side, side, dtype=torch.float16, device=a.device)
        self.ids = torch.zeros(a.pool, tokenizer.length, dtype=torch.long, device=a.device)
        self.head = self.filled = 0
        self.owed = 0.0
        self.queue = Queue(4)
        threading.Thread(target=self.render, daemon=True).start()

    def render(self):
        scenes, rng = Scenes(self.a.data), random.Random(time.time_ns())
        while True:
            drawn = [scenes.draw(rng) for _ in range(256)]
            self.queue.put((np.stack([scenes.render(s, self.a.size) for s in drawn]), self.tokenizer([s.caption for s in drawn])[0]))

    @torch.no_grad()
    def refresh(self):
        pixels, ids = self.queue.get()
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(self.a.device) * 2 - 1
        with torch.autocast(self.a.device, torch.bfloat16):
            z = torch.cat([self.vae.encode(part).latent_dist.mean for part in x.split(128)]).float() * self.vae.config.scaling_factor
        where = (torch.arange(len(z)) + self.head) % self.a.pool
        self.z[where], self.ids[where] = z.half(), torch.from_numpy(ids).to(self.a.device)
        self.head = (self.head + len(z)) % self.a.pool
        self.filled = min(self.a.pool, self.filled + len(z))
        return len(z)

    def batch(self, n):
        self.owed += n / self.a.reuse
        while self.filled < 4096:
            self.refresh()
        while self.owed > 256:
            self.owed -= self.refresh()
        where = torch.randint(0, self.filled, (n,), device=self.a.device)
        return self.z[where].float(), self.ids[where]


def save(a, unet, text, vae, average):
    """The moving average as a diffusers folder, in float16."""
    weights = [p for m in (unet, text) for p in m.parameters()]
    kept = [p.detach().clone() for p in weights]
    with torch.no_grad():
        for p, mean in zip(weights, average):
            p.copy_(mean)
        for model, name in ((unet, "unet"), (text, "text_encoder"), (vae, "vae")):
            state = {k: v.clone() for k, v in model.state_dict().items()}
            model.half().save_pretrained(a.out / name)
            model.float().load_state_dict(state)
        for p, before in zip(weights, kept):
            p.copy_(before)
    DDIMScheduler(**SCHEDULE).save_pretrained(a.out / "scheduler")
    (a.out / "model_index.json").write_text(json.dumps(INDEX, indent=1))
    (a.out / "words.txt").write_text("\n".join(vocabulary()) + "\n")
    shutil.copytree(a.tokenizer, a.out / "tokenizer", dirs_exist_ok=True)


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    tokenizer = Tokenizer(**read_vocabulary(a.tokenizer))
    vae = AutoencoderKL.from_pretrained(a.vae, torch_dtype=torch.float32).to(a.device).eval().requires_grad_(False)
    tokens = tokenizer.size
    if a.start:
        unet = UNet2DConditionModel.from_pretrained(a.start / "unet", torch_dtype=torch.float32)
        text = CLIPTextModel.from_pretrained(a.start / "text_encoder", dtype=torch.float32)
    else:
        unet = UNet2DConditionModel(sample_size=a.size // 2 ** (len(vae.config.block_out_channels) - 1), **UNET)
        text = CLIPTextModel(CLIPTextConfig(vocab_size=tokens, bos_token_id=tokenizer.bos, eos_token_id=tokenizer.eos,
                                            pad_token_id=tokenizer.pad, projection_dim=128, **TEXT))
    unet, text = unet.to(a.device).train(), text.to(a.device).train()
    for m in (unet, vae):                                    # on a CPU, plain attention has the faster backward pass
        m.set_attn_processor(AttnProcessor())
    text.set_attn_implementation("eager")
    weights = [p for m in (unet, text) for p in m.parameters()]
    optimizer = torch.optim.AdamW(weights, a.rate, betas=(.9, .99), weight_decay=.01)
    average, step, before = [p.detach().clone() for p in weights], 0, 0.0
    a.out.mkdir(parents=True, exist_ok=True)
    checkpoint = a.out / "checkpoint.pt"
    if checkpoint.exists():
        c = torch.load(checkpoint, map_location=a.device, weights_only=True)
        unet.load_state_dict(c["unet"])
        text.load_state_dict(c["text"])
        optimizer.load_state_dict(c["optimizer"])
        average, step, before = c["average"], c["step"], c["minutes"]
    betas = torch.linspace(SCHEDULE["beta_start"] ** .5, SCHEDULE["beta_end"] ** .5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0).float().to(a.device)
    snr = abar / (1 - abar)
    weigh = snr.clamp(max=5) / (snr + 1)
    empty = torch.from_numpy(tokenizer([""])[0]).to(a.device)
    pool = Pool(a, vae, tokenizer)
    pool.batch(1)
    print(f"unet {sum(p.numel() for p in unet.parameters()):,} and text encoder {sum(p.numel() for p in text.parameters()):,} numbers, "
          f"{tokens} tokens", flush=True)

    start = told = saved = time.time()
    losses = []
    while (minutes := before + (time.time() - start) / 60) < a.minutes:
        share = minutes / a.minutes
        rate = a.rate * min(1, (step + 1) / 200) * (1 if share < .5 else max(.02, .5 + .5 * math.cos(math.pi * (share - .5) / .5)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        z, ids = pool.batch(a.batch)
        ids = torch.where(torch.rand(len(ids), 1, device=a.device) < .1, empty, ids)
        t = torch.randint(0, 1000, (len(z),), device=a.device)
        eps = torch.randn_like(z)
        alpha, sigma = abar[t].sqrt()[:, None, None, None], (1 - abar[t]).sqrt()[:, None, None, None]
        with torch.autocast(a.device, torch.bfloat16):
            out = unet(alpha * z + sigma * eps, t, text(ids).last_hidden_state).sample
        loss = ((out.float() - (alpha * eps - sigma * z)).pow(2).mean((1, 2, 3)) * weigh[t]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in weights], 1 - min(.999, (step + 1) / (step + 10)))
        losses.append(float(loss.detach()))
        if time.time() - told > 60:
            told = time.time()
            print(f"{minutes:6.1f} min  step {step}  samples {step * a.batch:,}  loss {np.mean(losses[-300:]):.4f}  rate {rate:.1e}",
                  flush=True)
        if time.time() - saved > 480 or before + (time.time() - start) / 60 >= a.minutes:
            saved = time.time()
            save(a, unet, text, vae, average)
            torch.save(dict(unet=unet.state_dict(), text=text.state_dict(), optimizer=optimizer.state_dict(), average=average,
                            step=step, minutes=before + (saved - start) / 60), a.out / "checkpoint.tmp")
            (a.out / "checkpoint.tmp").replace(checkpoint)
    print(f"done: {step} steps, {step * a.batch:,} samples in {a.minutes:g} minutes, loss {np.mean(losses[-1000:]):.4f}")


if __name__ == "__main__":
    main()
