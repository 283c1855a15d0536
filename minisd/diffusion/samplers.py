"""Samplers: from pure noise to a latent by following the noise predictor downhill.

At every noise level  x = alpha x0 + sigma eps.  Two conventions are in use:

    variance preserving   alpha^2 + sigma^2 = 1                  DDIM, DPM++, UniPC, LCM, DDPM, PNDM
    variance exploding    alpha = 1; the unet is shown x / sqrt(1 + sigma^2)      Euler, Heun, DPM2, LMS

The two meet in the `level` = sigma / alpha, which is the "sigma" of [EDM], of k-diffusion and of "Karras sigmas"; for the second
kind level and sigma are the same number.

Every sampler has the same members, all indexed by the number of the unet call, i = 0 .. len(timesteps)-1:

    timesteps[i]              the timestep that the unet is given, 0 .. 999; a float where the reference has one
    alpha[i], sigma[i]        coefficients of x before step i
    init_sigma                standard deviation the first latent must have
    scale_input(x, i)         the latent as the unet wants to see it
    predict(x, out, i)        the unet's output read as (x0, eps), whatever it was trained to predict
    step(x, out, i, randn)    latent i -> latent i+1; randn() gives noise of x's shape, for stochastic samplers
    add_noise(x0, noise, i)   a clean latent brought to the level of step i; all three of one shape, (B,h,w,C)

What a multistep method remembers stays in the sampler, so one is made for each run:
`sampler("euler", scheduler_config, steps=20)`.  Schedules are float64 on the host and cross into array code as floats.

**To add a sampler**, write its class here, with schedule() and step(), under one @register line; nothing else needs to know of it.

Numbers follow diffusers 0.42, whose class defaults stand in each class's `defaults`.
[DDPM] Ho et al. 2020   [DDIM] Song et al. 2021   [PNDM] Liu et al. 2022   [EDM] Karras et al. 2022
[DPM++] Lu et al. 2022, arXiv:2211.01095   [UniPC] Zhao et al. 2023   [v] Salimans & Ho 2022
"""
import math
from dataclasses import dataclass

import numpy as np

from ..errors import CheckpointError, InputError
from .schedules import alphas_cumprod, level_to_t, respaced_levels, spaced_timesteps, trained_levels

# ---- what all samplers share -----------------------------------------------------------------------------------

TRAINING = dict(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear", trained_betas=None,
                prediction_type="epsilon", steps_offset=0)
RESPACED = dict(use_karras_sigmas=False, use_exponential_sigmas=False, use_beta_sigmas=False)
CLIPPED = dict(clip_sample=True, clip_sample_range=1.0, thresholding=False)
# Options of the reference's schedulers of which minisd knows only these values; any other is refused, never ignored.
ONLY = dict(use_beta_sigmas=(False, None), use_lu_lambdas=(False,), use_flow_sigmas=(False,), thresholding=(False,),
            interpolation_type=("linear",), timestep_type=("discrete",), predict_x0=(True,), solver_p=(None,),
            variance_type=("fixed_small", "fixed_large", None), final_sigmas_type=("zero", "sigma_min"),
            solver_order=(1, 2, 3), solver_type=("midpoint", "heun", "logrho", "bh1", "bh2"),
            prediction_type=("epsilon", "v_prediction", "sample"))


@dataclass(frozen=True)
class Registered:
    """A sampler as people choose it."""
    kind: type                              # its class
    a1111: str                              # what AUTOMATIC1111's web UI calls it, in pictures' settings
    diffusers: str                          # the class in a scheduler_config.json that stands for it
    help: str
    fixed: dict                             # options of the class that its name implies


SAMPLERS: dict[str, Registered] = {}                         # name -> Registered


def register(name, a1111, diffusers, help, **fixed):
    """Decorator: this class is the sampler `name`."""
    def add(kind):
        SAMPLERS[name] = Registered(kind, a1111, diffusers, help, fixed)
        return kind
    return add


class Sampler:
    """What all have in common; see the top of this file."""

    defaults: dict = {}
    calls_per_step = 1                                       # of the unet

    def __init__(self, config, steps, eta=0.0):
        self.config, self.eta, self.past = config, eta, []
        self.abar = alphas_cumprod(config)
        self.schedule(config, steps)

    def preserve_variance(self, abar):
        self.alpha, self.sigma, self.init_sigma = np.sqrt(abar), np.sqrt(1 - abar), 1.0

    def scale_input(self, x, i):
        return x / math.hypot(self.alpha[i], self.sigma[i])

    def predict(self, x, out, i):
        a, s = float(self.alpha[i]), float(self.sigma[i])
        r = math.hypot(a, s)
        kind = self.config["prediction_type"]
        if kind == "epsilon":
            return (x - s * out) / a, out
        if kind == "sample":
            return out, (x - a * out) / s
        return (a / r**2) * x - (s / r) * out, (s / r**2) * x + (a / r) * out       # [v] section 4

    def add_noise(self, x0, noise, i):
        return float(self.alpha[i]) * x0 + float(self.sigma[i]) * noise

    def keep(self, x0, noise, i):
        """What a mask keeps of a clean latent, brought to the level of step i > 0."""
        return self.add_noise(x0, noise, i)

    def clip(self, x0):
        r = self.config["clip_sample_range"]
        return x0.clip(-r, r) if self.config["clip_sample"] else x0


# ---- variance preserving: DDIM ---------------------------------------------------------------------------------


@register("ddim", "DDIM", "DDIMScheduler", "deterministic; stochastic with eta")
class DDIM(Sampler):
    """[DDIM] eq. 12; eta = 0 is deterministic, eta = 1 as noisy as DDPM (eq. 16)."""

    defaults = dict(TRAINING, **CLIPPED, timestep_spacing="leading", set_alpha_to_one=True, rescale_betas_zero_snr=False)

    def schedule(self, c, steps):
        self.timesteps = spaced_timesteps(c, steps)
        t = self.timesteps.astype(int)
        final = 1.0 if c["set_alpha_to_one"] else self.abar[0]
        before = t - len(self.abar) // steps                 # not the next timestep, unless the spacing is leading
        self.abar_at = self.abar[t]
        self.abar_next = np.where(before >= 0, self.abar[before], final)
        self.preserve_variance(np.append(self.abar_at, self.abar_next[-1]))

    def step(self, x, out, i, randn):
        a, a_next = float(self.abar_at[i]), float(self.abar_next[i])
        x0, eps = self.predict(x, out, i)
        sd = self.eta * ((1 - a_next) / (1 - a) * float(1 - np.float32(a) / np.float32(a_next))) ** 0.5
        x = a_next**0.5 * self.clip(x0) + (1 - a_next - sd**2) ** 0.5 * eps
        return x + sd * randn() if self.eta > 0 else x


# ---- variance exploding ----------------------------------------------------------------------------------------


class Exploding(Sampler):
    """x = x0 + sigma eps, and the slope dx/dsigma of [EDM] eq. 3."""

    defaults = dict(TRAINING, timestep_spacing="linspace")
    rounds_karras = False

    def schedule(self, c, steps):
        levels = trained_levels(c, self.abar)
        t = spaced_timesteps(c, steps, rounded=False)
        sigma = np.interp(t, np.arange(len(levels)), levels)
        again = respaced_levels(c, float(sigma[0]), float(sigma[-1]), steps)
        if again is not None:
            sigma, t = again, level_to_t(again, levels)
            if c["use_karras_sigmas"] and self.rounds_karras:
                t = t.round()
        self.trained_levels = levels
        end = levels[0] if c.get("final_sigmas_type") == "sigma_min" else 0.0
        self.stages(t, np.append(sigma, end).astype(np.float32).astype(np.float64))
        self.alpha = np.ones_like(self.sigma)
        top = float(self.sigma.max())
        self.init_sigma = top if c["timestep_spacing"] in ("linspace", "trailing") else math.hypot(top, 1)

    def stages(self, t, sigma):
        """One unet call a step; the two-stage methods lay their levels between."""
        self.timesteps, self.sigma = t, sigma

    def between(self, t, sigma, middle):
        """Lay the levels middle[k] between sigma[k] and sigma[k+1], but for the last step, which goes straight to 0."""
        self.level = sigma
        self.sigma = np.append(np.stack([sigma[:-1], np.append(middle, 0.0)], 1).reshape(-1)[:-1], sigma[-1])
        self.timesteps = np.stack([t, np.append(level_to_t(middle, self.trained_levels), 0.0)], 1).reshape(-1)[:-1]

    def slope(self, x, out, i):
        """(x - x0) / sigma: eps itself, but rounded as the reference rounds it, which counts where sigma is thousands."""
        return (x - self.predict(x, out, i)[0]) / float(self.sigma[i])


@register("euler", "Euler", "EulerDiscreteScheduler", "one slope a step; plain and robust")
class Euler(Exploding):
    """[EDM] algorithm 1 without the correction."""

    defaults = dict(Exploding.defaults, **RESPACED, interpolation_type="linear", timestep_type="discrete", sigma_min=None,
                    sigma_max=None, final_sigmas_type="zero", rescale_betas_zero_snr=False)

    def step(self, x, out, i, randn):
        return x + float(self.sigma[i + 1] - self.sigma[i]) * self.slope(x, out, i)


def ancestral(s, s_next):
    """How far to go down and how much noise to put back, so that the level is s_next: k-diffusion's ancestral step.

    down^2 + up^2 = s_next^2 with up^2 = s_next^2 (s^2 - s_next^2) / s^2."""
    down = s_next**2 / s                                     # exact; the reference's sqrt(s_next^2 - up^2) loses digits
    return float(down), math.sqrt(s_next**2 - down**2)


@register("euler_a", "Euler a", "EulerAncestralDiscreteScheduler", "euler, with new noise after each step")
class EulerAncestral(Exploding):
    """Euler to below the next level, then noise up to it."""

    defaults = dict(Exploding.defaults, rescale_betas_zero_snr=False)

    def step(self, x, out, i, randn):
        down, up = ancestral(self.sigma[i], self.sigma[i + 1])
        return x + (down - float(self.sigma[i])) * self.slope(x, out, i) + up * randn()


@register("heun", "Heun", "HeunDiscreteScheduler", "the mean of two slopes; two unet calls a step")
class Heun(Exploding):
    """[EDM] algorithm 1: a step, the slope at its end, and the step again with the mean of both slopes."""

    calls_per_step = 2
    defaults = dict(Exploding.defaults, **RESPACED, beta_start=0.00085, beta_end=0.012, clip_sample=False,
                    clip_sample_range=1.0)

    def stages(self, t, sigma):
        self.between(t, sigma, sigma[1:-1])
        self.timesteps[1::2] = t[1:]

    def slope(self, x, out, i):
        return (x - self.clip(self.predict(x, out, i)[0])) / float(self.sigma[i])

    def step(self, x, out, i, randn):
        d, k = self.slope(x, out, i), i // 2
        if i % 2 == 0:
            self.past = [x, d]
        else:
            x, d = self.past[0], (self.past[1] + d) / 2
        return x + float(self.level[k + 1] - self.level[k]) * d


@register("dpm2", "DPM2", "KDPM2DiscreteScheduler", "the slope halfway; two unet calls a step")
class DPM2(Exploding):
    """[EDM]'s midpoint form of DPM-Solver-2 (Lu et al. 2022): the slope halfway down, in log sigma, for the whole step."""

    defaults = dict(Exploding.defaults, **RESPACED, beta_start=0.00085, beta_end=0.012)
    rounds_karras, calls_per_step = True, 2

    def stages(self, t, sigma):
        self.target = sigma[1:]
        self.between(t, sigma, np.sqrt(sigma[:-2] * sigma[1:-1]))

    def step(self, x, out, i, randn):
        d, k = self.slope(x, out, i), i // 2
        if i % 2 == 0:
            self.past = [x]
            return x + float(self.sigma[i + 1] - self.sigma[i]) * d
        return self.past[0] + float(self.target[k] - self.level[k]) * d

    def keep(self, x0, noise, i):
        """Halfway, what a mask keeps is brought to the level of the step's end already, as the reference has it."""
        return x0 + float(self.level[(i + 1) // 2]) * noise


@register("dpm2_a", "DPM2 a", "KDPM2AncestralDiscreteScheduler", "dpm2, with new noise after each step")
class DPM2Ancestral(DPM2):
    """DPM2 to below the next level, then noise up to it."""

    def stages(self, t, sigma):
        down_up = np.array([ancestral(a, b) for a, b in zip(sigma, sigma[1:])])
        self.target, self.up = down_up[:, 0], down_up[:, 1]
        self.between(t, sigma, np.sqrt(sigma[:-2] * self.target[:-1]))

    def step(self, x, out, i, randn):
        x = super().step(x, out, i, randn)
        return x + float(self.up[i // 2]) * randn() if i % 2 else x


@register("lms", "LMS", "LMSDiscreteScheduler", "linear multistep of order 4")
class LMS(Exploding):
    """Adams-Bashforth of order 4: the last slopes' Lagrange polynomial, integrated from sigma_i to sigma_{i+1}."""

    defaults = dict(Exploding.defaults, **RESPACED)

    def step(self, x, out, i, randn):
        self.past = [self.slope(x, out, i), *self.past[:3]]                          # newest first
        lo, hi = self.sigma[i + 1], self.sigma[i]
        gauss = (lo + hi) / 2 + (lo - hi) / 2 * np.array([-1, 1]) / math.sqrt(3)     # exact to degree 3
        for j, d in enumerate(self.past):
            nodes = [self.sigma[i - k] for k in range(len(self.past)) if k != j]
            basis = np.prod([(gauss - s) / (self.sigma[i - j] - s) for s in nodes], axis=0)
            x = x + float((lo - hi) / 2 * np.sum(basis * np.ones(2))) * d
        return x


# ---- variance preserving, in steps of the logarithm of alpha / sigma -------------------------------------------


class LogSNR(Sampler):
    """What DPM++ and UniPC share: steps in lambda = log(alpha / sigma) = -log(level)."""

    def schedule(self, c, steps):
        levels = trained_levels(c, self.abar)
        last = len(levels)
        if c.get("lambda_min_clipped") is not None and math.isfinite(c["lambda_min_clipped"]):
            last -= int(np.searchsorted(-np.log(levels[::-1]), c["lambda_min_clipped"]))
        t = spaced_timesteps(c, steps, last, extra=1)
        levels_at, lowest = respaced_levels(c, float(levels[-1]), float(levels[0]), steps), levels[0]
        if levels_at is None:
            levels_at = np.interp(t, np.arange(len(levels)), levels)
        else:
            t = level_to_t(levels_at, levels)
            lowest = levels_at[-1] if self.ends_on_last else lowest
            if c["use_karras_sigmas"] and not (c["beta_schedule"] == "squaredcos_cap_v2" and self.keeps_fractions):
                t = t.round()
        self.timesteps = np.trunc(t)                         # the reference keeps them as integers
        end = {"zero": 0.0, "sigma_min": lowest}[c["final_sigmas_type"]]
        self.level = np.append(levels_at, end).astype(np.float32).astype(np.float64)
        if (np.diff(self.level[:-1]) >= 0).any():
            raise InputError(f"{steps} steps are so many that neighbours fall on one noise level, which this sampler cannot "
                             "divide by; use fewer")
        self.preserve_variance(1 / (1 + self.level**2))

    def lam(self, i):
        return -math.log(self.level[i]) if self.level[i] > 0 else math.inf


@register("dpmpp_2m_sde", "DPM++ 2M SDE", "DPMSolverMultistepScheduler", "its stochastic sibling", algorithm_type="sde-dpmsolver++")
@register("dpmpp_2m", "DPM++ 2M", "DPMSolverMultistepScheduler", "two steps of history; good at 20 steps", algorithm_type="dpmsolver++")
class DPMpp2M(LogSNR):
    """[DPM++] algorithm 2: two steps of history on x0; with algorithm_type sde-dpmsolver++ its stochastic sibling."""

    defaults = dict(TRAINING, **RESPACED, timestep_spacing="linspace", solver_order=2, algorithm_type="dpmsolver++",
                    solver_type="midpoint", lower_order_final=True, euler_at_final=False, final_sigmas_type="zero",
                    lambda_min_clipped=-math.inf, thresholding=False, variance_type=None, use_lu_lambdas=False,
                    use_flow_sigmas=False, rescale_betas_zero_snr=False)
    keeps_fractions, ends_on_last = True, False

    def schedule(self, c, steps):
        for key, known in (("algorithm_type", ("dpmsolver++", "sde-dpmsolver++")), ("solver_order", (1, 2))):
            if c[key] not in known:
                raise CheckpointError(f"scheduler_config.json: {key} is {c[key]!r}; minisd's DPM++ knows {known}")
        self.stochastic = c["algorithm_type"].startswith("sde")
        self.heun = c["solver_type"] == "heun"
        super().schedule(c, steps)

    def first_order(self, i):
        c, n = self.config, len(self.timesteps)
        end = c["euler_at_final"] or c["final_sigmas_type"] == "zero" or (c["lower_order_final"] and n < 15)
        return c["solver_order"] == 1 or len(self.past) < 2 or (i == n - 1 and end)

    def step(self, x, out, i, randn):
        self.past = [*self.past[-1:], self.predict(x, out, i)[0]]
        m0, shrink = self.past[-1], float(self.level[i + 1] / self.level[i])          # shrink = exp(-h)
        a, s, h = float(self.alpha[i + 1]), float(self.sigma[i + 1]), self.lam(i + 1) - self.lam(i)
        k = 2 if self.stochastic else 1                      # the SDE moves by exp(-2h) and puts noise in its place
        gain = 1 - shrink**k
        x = s / float(self.sigma[i]) * shrink ** (k - 1) * x + a * gain * m0
        if not self.first_order(i):
            d1 = (m0 - self.past[-2]) * (h / (self.lam(i) - self.lam(i - 1)))
            x = x + a * (1 - gain / (k * h) if self.heun else gain / 2) * d1
        return x + s * gain**0.5 * randn() if self.stochastic else x


@register("unipc", "UniPC", "UniPCMultistepScheduler", "predictor and corrector; good at 10 steps")
class UniPC(LogSNR):
    """[UniPC] algorithms 5 (corrector) and 6 (predictor) in data prediction, B(h) of eq. 13."""

    defaults = dict(TRAINING, **RESPACED, timestep_spacing="linspace", solver_order=2, solver_type="bh2",
                    lower_order_final=True, disable_corrector=(), predict_x0=True, solver_p=None, thresholding=False,
                    final_sigmas_type="zero", use_flow_sigmas=False, sigma_min=None, sigma_max=None,
                    rescale_betas_zero_snr=False)
    keeps_fractions, ends_on_last = False, True

    def step(self, x, out, i, randn):
        c = self.config
        x0 = self.predict(x, out, i)[0]
        if self.past and i - 1 not in c["disable_corrector"]:
            x = self.update(self.start, i - 1, self.order, x0)
        self.past = [*self.past[-2:], x0]
        order = min(c["solver_order"], len(self.timesteps) - i) if c["lower_order_final"] else c["solver_order"]
        self.order, self.start = min(order, len(self.past)), x
        return self.update(x, i, self.order)

    def update(self, x, i, order, x0_next=None):
        """Level i -> i+1.  With x0_next, the prediction made at the far end, this is the corrector."""
        m0, h = self.past[-1], self.lam(i + 1) - self.lam(i)
        phi = math.expm1(-h)
        B = -h if self.config["solver_type"] == "bh1" else phi
        rk = [(self.lam(i - k) - self.lam(i)) / h for k in range(1, order)] + [1.0]
        D1 = [(self.past[-1 - k] - m0) / rk[k - 1] for k in range(1, order)]
        if x0_next is not None:
            D1.append(x0_next - m0)
        n = len(D1)
        if n == 0:
            rho = []
        elif (order, n) in ((2, 1), (1, 1)):                 # the paper's choice: exact to the order without solving
            rho = [0.5]
        else:
            b, phi_k, factorial = [], phi / -h - 1, 1
            for k in range(1, n + 1):
                b.append(phi_k * factorial / B)
                factorial *= k + 1
                phi_k = phi_k / -h - 1 / factorial
            rho = np.linalg.solve(np.vander(rk[:n], increasing=True).T, b)
        a = float(self.alpha[i + 1])
        x = float(self.sigma[i + 1] / self.sigma[i]) * x - a * phi * m0
        for r, d in zip(rho, D1):
            x = x - a * B * float(r) * d
        return x


# ---- variance preserving: the rest -----------------------------------------------------------------------------


@register("lcm", "LCM", "LCMScheduler", "4 to 8 steps, for latent consistency models and LCM-LoRA")
class LCM(Sampler):
    """Luo et al. 2023 (latent consistency models), algorithm 3: to x0 in one call, then noise up to the next, lower level."""

    defaults = dict(TRAINING, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                    clip_sample_range=1.0, thresholding=False, set_alpha_to_one=True, original_inference_steps=50,
                    timestep_scaling=10.0, timestep_spacing="leading", rescale_betas_zero_snr=False)

    def schedule(self, c, steps):
        self.schedule_within(steps, 1.0)

    def schedule_within(self, steps, strength):
        """The given number of steps within the lower `strength` of the levels that it was trained to jump between."""
        trained = self.config["original_inference_steps"]
        if not isinstance(trained, int) or not 1 <= trained <= len(self.abar):
            raise CheckpointError(f"scheduler_config.json: original_inference_steps is {trained!r}; it must be from 1 to {len(self.abar)}")
        known = int(trained * strength)
        if steps > known:
            raise InputError(f"lcm knows {known} noise levels{f' at strength {strength:g}' * (strength < 1)} and cannot make {steps} "
                             "steps; 4 to 8 are its use")
        levels = (np.arange(known, 0, -1) * (len(self.abar) // trained) - 1).astype(float)
        self.timesteps = levels[np.floor(np.linspace(0, known, steps, endpoint=False)).astype(int)]
        self.preserve_variance(np.append(self.abar[self.timesteps.astype(int)], 1.0))

    def step(self, x, out, i, randn):
        t = self.timesteps[i] * self.config["timestep_scaling"]
        skip, new = 0.25 / (t**2 + 0.25), t / math.sqrt(t**2 + 0.25)                 # eq. 9 of Song et al. 2023: at t = 0, x itself
        x0 = float(new) * self.clip(self.predict(x, out, i)[0]) + float(skip) * x
        return x0 if i == len(self.timesteps) - 1 else self.add_noise(x0, randn(), i + 1)


@register("ddpm", "DDPM", "DDPMScheduler", "the training's own chain, stochastic; wants many steps")
class DDPM(Sampler):
    """[DDPM] eq. 7: the posterior q(x_{t-1} | x_t, x0), sampled."""

    defaults = dict(TRAINING, **CLIPPED, timestep_spacing="leading", variance_type="fixed_small",
                    rescale_betas_zero_snr=False)

    def schedule(self, c, steps):
        self.timesteps = spaced_timesteps(c, steps)
        self.abar_at = np.append(self.abar[self.timesteps.astype(int)], 1.0)
        self.preserve_variance(self.abar_at)

    def step(self, x, out, i, randn):
        a, a_next = self.abar_at[i:i + 2].astype(np.float32)
        alpha = a / a_next                                   # of this one step; beta = 1 - alpha, rounded to float32
        beta, left, kept = float(1 - alpha), float(1 - a_next), float(1 - a)         # as the reference rounds it
        x0 = self.clip(self.predict(x, out, i)[0])
        mean = float(a_next) ** 0.5 * beta / kept * x0 + float(alpha) ** 0.5 * left / kept * x
        if self.timesteps[i] == 0:
            return mean
        variance = beta if self.config["variance_type"] == "fixed_large" else max(left / kept * beta, 1e-20)
        return mean + variance**0.5 * randn()


@register("pndm", "PLMS", "PNDMScheduler", "linear multistep; the default of SD 1")
class PNDM(Sampler):
    """[PNDM] algorithm 2: linear multistep on eps, moved from level to level by eq. 11.

    skip_prk_steps starts it with one pseudo improved-Euler step (the second timestep is visited twice) in place of
    three pseudo Runge-Kutta steps of four unet calls each."""

    defaults = dict(TRAINING, timestep_spacing="leading", skip_prk_steps=False, set_alpha_to_one=False)

    def schedule(self, c, steps):
        t = spaced_timesteps(c, steps)[::-1].astype(int)     # clean to noisy
        self.stride = len(self.abar) // steps
        self.final = 1.0 if c["set_alpha_to_one"] else self.abar[0]
        if c["skip_prk_steps"]:
            self.prk = np.array([], int)
            plms = np.concatenate([t[:-1], t[-2:-1], t[-1:]])[::-1]
        else:
            if steps < 4:
                raise InputError(f"pndm starts with three Runge-Kutta steps and needs 4 steps or more, not {steps}; "
                                 "use more, or another sampler")
            halves = t[-4:].repeat(2) + np.tile([0, self.stride // 2], 4)
            self.prk = halves[:-1].repeat(2)[1:-1][::-1]
            plms = t[:-3][::-1]
        self.timesteps = np.concatenate([self.prk, plms]).astype(float)
        self.preserve_variance(np.append(self.abar[self.timesteps.astype(int).clip(max=len(self.abar) - 1)], self.final))

    def step(self, x, out, i, randn):
        t, e = int(self.timesteps[i]), self.past
        if i < len(self.prk):
            return self.runge_kutta(x, out, i, t)
        t_next = t - self.stride
        if self.config["skip_prk_steps"] and len(e) == 1 and self.start is not None:       # the second visit
            t, t_next, x, out, self.start = t_next + 2 * self.stride, t, self.start, (out + e[-1]) / 2, None
            return self.transfer(x, out, t, t_next)
        self.start = x if not e else None
        e.append(out)
        if len(e) == 2:
            out = (3 * e[-1] - e[-2]) / 2
        elif len(e) == 3:
            out = (23 * e[-1] - 16 * e[-2] + 5 * e[-3]) / 12
        elif len(e) > 3:
            out = (55 * e[-1] - 59 * e[-2] + 37 * e[-3] - 9 * e[-4]) / 24
            del e[:-4]
        return self.transfer(x, out, t, t_next)

    def runge_kutta(self, x, out, i, t):
        """[PNDM] eq. 13, one of its four calls."""
        t_next = t - (0 if i % 2 else self.stride // 2)
        if i % 4 == 0:
            self.past.append(out)
            self.start, self.slope = x, 0
        self.slope = self.slope + out / (6, 3, 3, 6)[i % 4]
        return self.transfer(self.start, self.slope if i % 4 == 3 else out, int(self.prk[i // 4 * 4]), t_next)

    def transfer(self, x, out, t, t_next):
        """[PNDM] eq. 11."""
        a, a_next = np.float32([self.abar[t], self.abar[t_next] if t_next >= 0 else self.final])
        b, b_next, half = 1 - a, 1 - a_next, np.float32(0.5)                         # rounded as the reference rounds them
        if self.config["prediction_type"] == "v_prediction":
            out = float(a**half) * out + float(b**half) * x
        shrink = float(a_next - a) * out / float(a * b_next**half + (a * b * a_next) ** half)
        return float((a_next / a) ** half) * x - shrink


# ---- by name ---------------------------------------------------------------------------------------------------


def samplers() -> dict[str, str]:
    """{name: what it is}, of every sampler that `sampler=` takes."""
    return {name: registered.help for name, registered in SAMPLERS.items()}


def name_of(config):
    """The sampler's name for a scheduler_config.json."""
    found = config.get("_class_name", "nothing")
    names = [name for name, r in SAMPLERS.items() if r.diffusers == found]
    if not names:
        raise CheckpointError(f"scheduler_config.json: _class_name is {found}, which minisd does not have; "
                              f"choose one with sampler=: {', '.join(SAMPLERS)}")
    return next((n for n in names if all(config.get(k) == v for k, v in SAMPLERS[n].fixed.items())), names[-1])


def corrected(config, own):
    """scheduler_config.json as diffusers' StableDiffusionPipeline has it: steps_offset 1 and no clipping of the latents.

    own: the model's own sampler runs; another class takes its own defaults for what the file does not say."""
    return {**config, **{k: v for k, v in (("steps_offset", 1), ("clip_sample", False)) if own or k in config}}


OPTIONAL = "trained_betas", "sigma_min", "sigma_max", "solver_p", "variance_type"        # numbers among them may be absent, None


def check_numbers(config, defaults):
    """Raises CheckpointError for a value of scheduler_config.json that is no number, or neither true nor false, where one must be."""
    for key, default in defaults.items():
        value, kind = config[key], "whole number" if key in ("num_train_timesteps", "steps_offset") else "number"
        if value is None and key in OPTIONAL or isinstance(default, (str, tuple)) or key in ("trained_betas", "disable_corrector"):
            continue                                         # looked at where they are used
        if isinstance(default, bool):
            right, kind = isinstance(value, bool), "truth value"
        else:
            right = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6
            right = right and (kind == "number" or value == int(value) >= 0) and (not key.startswith("beta_") or value >= 0)
        if not right and not (key == "lambda_min_clipped" and value == -math.inf):
            raise CheckpointError(f"scheduler_config.json: {key} is {value!r:.80}; it must be a {kind} below a million")


def sampler(name, config, steps, sigmas=None, eta=None, timestep_spacing=None, original_inference_steps=None):
    """A sampler for one run.

    name: one of SAMPLERS, or None for the class that `config`, a model's scheduler_config.json, names.  Another class
    keeps what the file says and this class knows, and its own defaults for the rest, as diffusers' from_config does:
    a file silent on timestep_spacing gives leading to ddim and linspace to euler.
    sigmas: "karras" or "exponential";  eta: DDIM's noise, 0 .. 1;  timestep_spacing: leading, linspace or trailing
    original_inference_steps: LCM's, the steps that its model was distilled from.
    Raises InputError for what cannot be combined, CheckpointError for a config that minisd cannot follow."""
    named = name is not None
    name = name if named else name_of(config)
    if not isinstance(name, str) or name not in SAMPLERS:
        raise InputError(f"there is no sampler {name!r}; choose one of {', '.join(SAMPLERS)}")
    kind = SAMPLERS[name].kind
    c = dict(kind.defaults, **{k: v for k, v in config.items() if k in kind.defaults})
    if named:
        c.update(SAMPLERS[name].fixed)
    if timestep_spacing is not None:
        c["timestep_spacing"] = timestep_spacing
    if sigmas is not None:
        if sigmas not in ("karras", "exponential") or "use_karras_sigmas" not in c:
            able = [k for k, r in SAMPLERS.items() if "use_karras_sigmas" in r.kind.defaults]
            raise InputError(f"sigmas is {sigmas!r} and the sampler {name}: it is 'karras' or 'exponential', with one of {', '.join(able)}")
        c.update(use_karras_sigmas=sigmas == "karras", use_exponential_sigmas=sigmas == "exponential")
    if eta is not None and (kind is not DDIM or not isinstance(eta, (int, float, np.number)) or not 0 <= eta <= 1):
        raise InputError(f"eta={eta} with {name}: eta is ddim's alone, 0 (deterministic) to 1")
    if original_inference_steps is not None:
        whole = isinstance(original_inference_steps, (int, np.integer)) and not isinstance(original_inference_steps, bool)
        if kind is not LCM or not whole or not 1 <= original_inference_steps <= 1000:
            raise InputError(f"original_inference_steps is {original_inference_steps!r} with {name}: it is lcm's alone, a whole number "
                             "from 1 to 1000, 50 as a rule")
        c["original_inference_steps"] = int(original_inference_steps)
    for key, known in ONLY.items():
        if key in c and c[key] not in known:
            raise CheckpointError(f"scheduler_config.json: {key} is {c[key]!r}; minisd knows {', '.join(map(repr, known))}")
    check_numbers(c, kind.defaults)
    n = c["num_train_timesteps"]
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= n:
        raise InputError(f"num_inference_steps is {steps!r}; it must be a whole number from 1 to {n}")
    return kind(c, int(steps), float(eta or 0))
