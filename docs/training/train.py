"""Trains the text encoder and the unet of the shipped model, together, in plain torch on diffusers' and transformers' classes.

    python train.py --data icons128.tar --vae vae --tokenizer tokenizer --out model --steps 12300

The target is v, the schedule Stable Diffusion's.  The loss is weighed as by min-SNR-5 (Hang et al. 2023) where noise is weak, and not
at all where it is strong: there the text alone says what to draw, and min-SNR's weight, which falls to 0, would leave that unlearnt.
One caption in ten is left empty, for guidance; what is saved is a moving average of the weights.  Scenes are rendered and encoded into
a pool of latents while training goes on, each used --reuse times.  --start takes the first weights from a finished model."""
import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from concepts import vocabulary
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from scenes import Scenes
from training import Run, add_arguments, prepared, rendered
from transformers import CLIPTextConfig, CLIPTextModel

from minisd.checkpoint.vocabulary import read_vocabulary
from minisd.prompt.tokenizer import Tokenizer

TEXT = dict(hidden_size=160, intermediate_size=640, num_hidden_layers=3, num_attention_heads=5, hidden_act="quick_gelu",
            max_position_embeddings=32)
UNET = dict(block_out_channels=(64, 128, 160), layers_per_block=1, cross_attention_dim=160, norm_num_groups=16, attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), in_channels=4, out_channels=4,
            only_cross_attention=(True, False, False))       # the largest level attends to the text alone: a fifth less time a step
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction")
INDEX = {"_class_name": "StableDiffusionPipeline", "_guidance_scale": 3.0, "scheduler": ["diffusers", "DDIMScheduler"],
         "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
         "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None],
         "feature_extractor": [None, None], "requires_safety_checker": False}


class Pool:
    """Latents of rendered scenes and their token ids, the oldest replaced by new ones."""

    def __init__(self, a, vae, tokenizer):
        self.a, self.vae = a, vae
        side = a.size // 2 ** (len(vae.config.block_out_channels) - 1)
        self.z = torch.zeros(a.pool, 4, side, side, dtype=torch.float16, device=a.device)
        self.ids = torch.zeros(a.pool, tokenizer.length, dtype=torch.long, device=a.device)
        self.head, self.filled, self.owed, scenes = 0, 0, 0.0, Scenes(a.data)

        def batch_of(rng):
            drawn = [scenes.draw(rng) for _ in range(256)]
            return np.stack([scenes.render(s, a.size) for s in drawn]), tokenizer([s.caption for s in drawn])[0]

        self.queue = rendered(4, batch_of)

    @torch.no_grad()
    def refresh(self):
        pixels, ids = self.queue.get()
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(self.a.device) * 2 - 1
        with torch.autocast(self.a.device, torch.bfloat16, enabled=self.a.bfloat16):
            z = torch.cat([self.vae.encode(part).latent_dist.mean for part in x.split(32)]).float() * self.vae.config.scaling_factor
        where = (torch.arange(len(z)) + self.head) % self.a.pool
        self.z[where], self.ids[where] = z.half(), torch.from_numpy(ids).to(self.a.device)
        self.head = (self.head + len(z)) % self.a.pool
        self.filled = min(self.a.pool, self.filled + len(z))
        return len(z)

    def batch(self, n):
        self.owed += n / self.a.reuse
        while self.filled < min(4096, self.a.pool):
            self.refresh()
        while self.owed > 256:
            self.owed -= self.refresh()
        where = torch.randint(0, self.filled, (n,), device=self.a.device)
        return self.z[where].float(), self.ids[where]


def save(a, unet, text, vae):
    """A diffusers folder, in float16."""
    for model, name in ((unet, "unet"), (text, "text_encoder"), (vae, "vae")):
        state = {k: v.clone() for k, v in model.state_dict().items()}
        model.half().save_pretrained(a.out / name)
        model.float().load_state_dict(state)
    DDIMScheduler(**SCHEDULE).save_pretrained(a.out / "scheduler")
    (a.out / "model_index.json").write_text(json.dumps(INDEX, indent=1))
    (a.out / "words.txt").write_text("\n".join(vocabulary()) + "\n")
    shutil.copytree(a.tokenizer, a.out / "tokenizer", dirs_exist_ok=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(p, batch=48, rate=2e-3)
    p.add_argument("--vae", required=True, help="folder that train_vae.py wrote")
    p.add_argument("--tokenizer", required=True, help="folder that make_tokenizer.py wrote")
    p.add_argument("--start", type=Path, help="a model to take the first weights from")
    p.add_argument("--compile", action="store_true", help="torch.compile the unet: two minutes more at first, then a seventh less a step")
    p.add_argument("--reuse", type=int, default=16)
    p.add_argument("--pool", type=int, default=32768)
    a = p.parse_args()
    torch.manual_seed(0)
    tokenizer = Tokenizer(**read_vocabulary(a.tokenizer))
    vae = AutoencoderKL.from_pretrained(a.vae, torch_dtype=torch.float32).to(a.device).eval().requires_grad_(False)
    if a.start:
        unet = UNet2DConditionModel.from_pretrained(a.start / "unet", torch_dtype=torch.float32)
        text = CLIPTextModel.from_pretrained(a.start / "text_encoder", dtype=torch.float32)
    else:
        unet = UNet2DConditionModel(sample_size=a.size // 2 ** (len(vae.config.block_out_channels) - 1), **UNET)
        text = CLIPTextModel(CLIPTextConfig(vocab_size=tokenizer.size, bos_token_id=tokenizer.bos, eos_token_id=tokenizer.eos,
                                            pad_token_id=tokenizer.pad, projection_dim=TEXT["hidden_size"], **TEXT))
    unet, text = prepared(unet, a), text.to(a.device).train()
    if a.compile:
        unet.compile()
    text.set_attn_implementation("eager")
    betas = torch.linspace(SCHEDULE["beta_start"] ** .5, SCHEDULE["beta_end"] ** .5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0).float().to(a.device)
    snr = abar / (1 - abar)
    weigh = (5 / (snr + 1)).clamp(max=1)
    empty = torch.from_numpy(tokenizer([""])[0]).to(a.device)
    run = Run(a, {"unet": unet, "text_encoder": text}, lambda: save(a, unet, text, vae))
    pool = Pool(a, vae, tokenizer)
    for _ in run.steps():
        z, ids = pool.batch(a.batch)
        ids = torch.where(torch.rand(len(ids), 1, device=a.device) < .1, empty, ids)
        t = torch.randint(0, 1000, (len(z),), device=a.device)
        eps = torch.randn_like(z)
        alpha, sigma = abar[t].sqrt()[:, None, None, None], (1 - abar[t]).sqrt()[:, None, None, None]
        with torch.autocast(a.device, torch.bfloat16, enabled=a.bfloat16):
            out = unet(alpha * z + sigma * eps, t, text(ids).last_hidden_state).sample
        run.learn(((out.float() - (alpha * eps - sigma * z)).pow(2).mean((1, 2, 3)) * weigh[t]).mean())


if __name__ == "__main__":
    main()
