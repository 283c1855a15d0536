"""What train_vae.py and train.py share: the optimizer, the moving average of the weights, checkpoints, a line a minute."""
import math
import random
import threading
import time
from pathlib import Path
from queue import Queue

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor


def add_arguments(parser, batch, rate):
    parser.add_argument("--data", required=True, help="icons128.tar")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, required=True, help="batches to learn from, all in all")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--size", type=int, default=128, help="side of a picture, pixels")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long; the same command goes on from there")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16: for GPUs, and CPUs on which it is faster")


def prepared(network, a):
    """A unet or VAE for training: channels-last, and with plain attention, which on a CPU has the faster backward pass."""
    network.set_attn_processor(AttnProcessor())
    return network.to(a.device, memory_format=torch.channels_last).train()


def rendered(queue_length, batch_of):
    """batch_of(rng), made ahead in a thread of its own; a resumed run goes on with other scenes."""
    queue = Queue(queue_length)

    def work():
        rng = random.Random(time.time_ns())
        while True:
            queue.put(batch_of(rng))

    threading.Thread(target=work, daemon=True).start()
    return queue


def orthogonal(m, rounds=5):
    """The nearest orthogonal matrices to m (n,a,b), nearly: Newton and Schulz's iteration with the coefficients of Jordan et al. 2024.
    A round multiplies x by a polynomial of x xT, so the rounds are done on that, which is small, and x is multiplied once."""
    tall = m.shape[1] > m.shape[2]
    x = (m.mT if tall else m) / (m.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram, one = x @ x.mT, torch.eye(x.shape[1], device=x.device)
    whole = one
    for _ in range(rounds):
        turn = 3.4445 * one - 4.7750 * gram + 2.0315 * gram @ gram
        gram, whole = turn @ gram @ turn, turn @ whole
    x = whole @ x
    return x.mT if tall else x


class Optimizer:
    """Muon (Jordan et al. 2024) for matrices and filters, a filter read as a matrix of (out, in * height * width); AdamW for
    embeddings, vectors and the outermost layers.  One rate for both, as Muon's steps are scaled to the length of AdamW's (Liu et
    al. 2025).  (torch.optim.Muon computes in bfloat16, which most CPUs do slowly, and takes no filters.)"""

    def __init__(self, models, rate, plain=("embedding", "conv_in", "conv_out"), decay=.01, momentum=.95):
        named = [(name, w) for model in models for name, w in model.named_parameters() if w.requires_grad]
        self.matrices = [w for name, w in named if w.ndim > 1 and not any(p in name for p in plain)]
        others = [w for name, w in named if w.ndim < 2 or any(p in name for p in plain)]
        self.weights, self.decay, self.momentum = [*self.matrices, *others], decay, momentum
        self.moments = [torch.zeros_like(w) for w in self.matrices]
        self.alike = {}                                      # {shape: [(matrix, its moment), ...]}
        for w, moment in zip(self.matrices, self.moments):
            self.alike.setdefault(w.flatten(1).shape, []).append((w, moment))
        self.adam = torch.optim.AdamW(others, rate, betas=(.9, .99), weight_decay=decay)

    def state(self):
        return {"moments": self.moments, "adam": self.adam.state_dict()}

    def load(self, state):
        for moment, stored in zip(self.moments, state["moments"], strict=True):
            moment.copy_(stored)
        self.adam.load_state_dict(state["adam"])

    def step(self, loss, rate):
        for w in self.weights:
            w.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.moments, [w.grad for w in self.matrices], 1 - self.momentum)
            for shape, pairs in self.alike.items():
                turns = orthogonal(torch.stack([w.grad.lerp(moment, self.momentum).flatten(1) for w, moment in pairs]))
                for (w, _), turn in zip(pairs, turns):
                    w.mul_(1 - rate * self.decay).sub_(turn.view_as(w), alpha=rate * .2 * max(shape) ** .5)


class Run:
    """A training run of so many steps that can be stopped at any: goes on from the checkpoint in its folder.

    for share in run.steps(): compute a loss; run.learn(loss)"""

    def __init__(self, a, models, save, decay=.999):
        """models: {name: module};  save(): writes the result, called with the averaged weights in the models' place."""
        torch.manual_seed(0)
        torch.set_num_threads(a.threads)
        self.a, self.models, self.save, self.decay, self.step, self.before, self.losses = a, models, save, decay, 0, 0.0, []
        self.optimizer = Optimizer(models.values(), a.rate)
        self.average = [w.detach().clone() for w in self.optimizer.weights]
        a.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = a.out / "checkpoint.pt"
        if self.checkpoint.exists():
            c = torch.load(self.checkpoint, map_location=a.device, weights_only=True)
            for name, model in models.items():
                model.load_state_dict(c["models"][name])
            self.optimizer.load(c["optimizer"])
            self.average, self.step, self.before = c["average"], c["step"], c["minutes"]
            torch.manual_seed(self.step)
        self.tell(f"{sum(w.numel() for w in self.optimizer.weights):,} numbers to learn, from step {self.step} of {a.steps}")

    def tell(self, words):
        line = f"{time.strftime('%F %T', time.gmtime())}  {words}"
        print(line, flush=True)
        with open(self.a.out / "log.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def steps(self):
        """The share of the run that is over, before each step."""
        start = told = saved = time.time()
        while self.step < self.a.steps and (now := time.time()) - start < self.a.minutes * 60:
            if now - told > 60:
                told = now
                self.tell(f"{self.before + (now - start) / 60:6.1f} min  step {self.step}  samples {self.step * self.a.batch:,}  "
                          f"loss {np.mean(self.losses[-300:]):.4f}  rate {self.rate():.1e}")
            if now - saved > 480:
                saved = now
                self.write(self.before + (now - start) / 60)
            yield self.step / self.a.steps
        self.before += (time.time() - start) / 60
        self.write(self.before)
        self.tell(f"{self.step} steps, {self.step * self.a.batch:,} samples in {self.before:.1f} minutes, "
                  f"loss {np.mean(self.losses[-1000:] or [math.nan]):.4f}")

    def rate(self):
        """Up over 100 steps, level, and down to nothing over the last 40 %."""
        return self.a.rate * min(1, (self.step + 1) / 100, max(.01, (1 - self.step / self.a.steps) / .4))

    def learn(self, loss):
        self.optimizer.step(loss, self.rate())
        self.step += 1
        self.losses.append(float(loss.detach()))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [w.detach() for w in self.optimizer.weights],
                                 1 - min(self.decay, (self.step + 1) / (self.step + 10)))

    def write(self, minutes):
        """The checkpoint, and the result with the averaged weights."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(dict(models={name: model.state_dict() for name, model in self.models.items()}, average=self.average, step=self.step,
                        optimizer=self.optimizer.state(), minutes=minutes), part)
        part.replace(self.checkpoint)
        with torch.no_grad():
            kept = [w.detach().clone() for w in self.optimizer.weights]
            for w, mean in zip(self.optimizer.weights, self.average):
                w.copy_(mean)
            self.save()
            for w, before in zip(self.optimizer.weights, kept):
                w.copy_(before)
