"""Noise schedules: how much noise each training timestep has, and which timesteps or levels a run of few steps visits.

Numbers are torch's and diffusers' to the last bit where that can be had: schedules are float32 there, and a sampler that
subtracts neighbouring levels would show the difference.   [EDM] Karras et al. 2022   [ZSNR] Lin et al. 2023
"""
import math

import numpy as np

from ..errors import CheckpointError, InputError


def linspace32(start, end, n):
    """torch.linspace in float32, bit by bit: from both ends towards the middle, each product and sum rounded once."""
    i = np.arange(n)
    start, end = np.float32(start), np.float32(end)
    step = np.float64((end - start) / np.float32(max(n - 1, 1)))
    return np.where(i < n // 2, start + step * i, end - step * (n - 1 - i)).astype(np.float32)


def cosine_betas(n, max_beta=0.999):
    """Nichol & Dhariwal 2021, eq. 17: abar(t) = cos^2((t + 0.008) / 1.008 * pi/2) for t in [0,1] -> betas (n,)."""
    abar = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
    return np.array([min(1 - b / a, max_beta) for a, b in zip(abar, abar[1:])], np.float32)


def cumprod32(alphas):
    """torch.cumprod of float32: accumulated in float64, each entry rounded."""
    return np.cumprod(alphas.astype(np.float64)).astype(np.float32)


def alphas_cumprod(c):
    """abar_t = prod(1 - beta_s) for s <= t, (num_train_timesteps,) float64 holding the reference's float32 values."""
    n, kind = c["num_train_timesteps"], c["beta_schedule"]
    if c["trained_betas"] is not None:
        given = c["trained_betas"]
        right = isinstance(given, list) and len(given) == n and all(isinstance(b, (int, float)) and 0 <= b < 1 for b in given)
        if not right:
            raise CheckpointError(f"scheduler_config.json: trained_betas is {str(given)[:60]}; it must be {n} numbers from 0 to 1")
        betas = np.array(c["trained_betas"], np.float32)
    elif kind == "linear":
        betas = linspace32(c["beta_start"], c["beta_end"], n)
    elif kind == "scaled_linear":                            # linear in sqrt(beta)
        betas = linspace32(c["beta_start"] ** 0.5, c["beta_end"] ** 0.5, n) ** 2
    elif kind == "squaredcos_cap_v2":
        betas = cosine_betas(n)
    else:
        raise CheckpointError(f"scheduler_config.json: beta_schedule is {kind!r}; "
                              "minisd knows linear, scaled_linear and squaredcos_cap_v2")
    if not ((betas >= 0) & (betas <= 1)).all():
        raise CheckpointError(f"scheduler_config.json: betas run from {betas.min():g} to {betas.max():g}; they must lie between 0 and 1")
    abar = cumprod32(1 - betas)
    if c.get("rescale_betas_zero_snr"):                      # [ZSNR] algorithm 1: the last level is pure noise
        root = np.sqrt(abar)
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        ratios = np.append(root[:1] ** 2, root[1:] ** 2 / root[:-1] ** 2)
        abar = cumprod32(1 - (1 - ratios))                   # by way of the betas, as the reference rounds
    return abar.astype(np.float64)


def spaced_timesteps(c, steps, last=None, extra=0, rounded=True):
    """Timesteps from noisy to clean, (steps,).   [ZSNR] table 2.

    last: how many of the training levels to use.  extra=1 lays out one more and drops it (DPM++ and UniPC)."""
    n, k, spacing = c["num_train_timesteps"], steps + extra, c["timestep_spacing"]
    last = n if last is None else last
    if spacing == "linspace":
        t = np.linspace(0, last - 1, k)[::-1]
        return (t.round() if rounded else t.astype(np.float32).astype(np.float64))[:steps]
    if spacing == "leading":
        t = (np.arange(k)[::-1] * ((last if extra else n) // k) + float(c["steps_offset"]))[:steps]
        if t[0] >= n:
            raise InputError(f"{steps} steps reach timestep {t[0]:g}, beyond the {n} trained; use fewer steps")
        return t
    if spacing == "trailing":
        return (np.arange(last, 0, -n / steps).round() - 1)[:steps]            # the reference can end with one too many, -1
    raise InputError(f"timestep_spacing is {spacing!r}; choose leading, linspace or trailing")


def trained_levels(c, abar):
    """The level sigma / alpha of each training timestep, float32 as in the reference.   [EDM] table 1."""
    abar = abar.astype(np.float32)
    if c.get("rescale_betas_zero_snr"):
        abar[-1] = 2**-24                                    # the reference's stand-in for an infinite sigma
    return np.sqrt((1 - abar) / abar)


def level_to_t(level, levels):
    """The timestep, as a fraction, of a noise level; linear in its logarithm between the trained `levels`."""
    return np.interp(np.log(np.maximum(level, 1e-10)), np.log(levels), np.arange(len(levels)))


def karras_sigmas(high, low, n, rho=7.0):
    """n levels from high down to low, (n,).   [EDM] eq. 5."""
    ramp = np.linspace(0, 1, n)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def exponential_sigmas(high, low, n):
    """n levels from high down to low, (n,), each the same share of the one before."""
    return np.exp(np.linspace(math.log(high), math.log(low), n))


def respaced_levels(c, high, low, steps):
    """Karras' or exponential levels where the configuration asks for them, else None."""
    high = high if c.get("sigma_max") is None else c["sigma_max"]
    low = low if c.get("sigma_min") is None else c["sigma_min"]
    if c.get("use_karras_sigmas") and c.get("use_exponential_sigmas"):
        raise InputError("the scheduler asks for Karras and for exponential sigmas; choose one")
    if c.get("use_karras_sigmas"):
        return karras_sigmas(high, low, steps)
    if c.get("use_exponential_sigmas"):
        return exponential_sigmas(high, low, steps)
    return None
