"""torch's normal random numbers, so that one seed gives one picture in both.

`TorchCPU(seed)` is torch.Generator("cpu").manual_seed(seed): within 1e-6, since torch's vectorised log and cosine round
differently.  `TorchCUDA(seed)` is the stream of a CUDA generator, within float32 rounding; exact for draws of up to as
many numbers as the GPU runs threads (40,960 on the smallest in use, latents of 512x512 are 16,384), and beyond that what
a GPU with more threads would draw."""
import math

import numpy as np

from ..errors import InputError

TWO_PI = 2 * math.pi


def check_seed(seed):
    """seed as an int, or InputError: torch takes whole numbers from -2^63 to 2^64 - 1, negative ones modulo 2^64."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not -2**63 <= seed < 2**64:
        raise InputError(f"seed is {seed!r}; it must be a whole number from -2^63 to 2^64 - 1")
    return int(seed) % 2**64


class TorchCPU:
    """Mersenne Twister (Matsumoto & Nishimura 1998) seeded with the low 32 bits, then Box & Muller 1958."""

    def __init__(self, seed):
        self._twister = np.random.RandomState(check_seed(seed) % 2**32)
        self._kept = None                                    # the second of a pair, for the next short draw

    def _words(self, n):
        """The next n 32-bit words."""
        return np.frombuffer(self._twister.bytes(4 * n), "<u4")

    def randn(self, shape):
        """Normal float32 numbers of any shape, as torch.randn fills a contiguous tensor."""
        n = math.prod(shape)
        flat = self._long(n) if n >= 16 else [self._short() for _ in range(n)]
        return np.array(flat, np.float32).reshape(shape)

    def _long(self, n):
        """16 numbers or more: each block of 16 uniforms gives 8 cosines, then 8 sines.  An incomplete last block is
        drawn afresh, over the end of the one before it."""
        u = self._uniform(n)
        whole = n // 16 * 16
        u[:whole] = self._box_muller(u[:whole])
        if whole < n:
            u[-16:] = self._box_muller(self._uniform(16))
        return u

    def _uniform(self, n):
        return (self._words(n) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)

    @staticmethod
    def _box_muller(u):
        u = u.reshape(-1, 2, 8)
        r, angle = np.sqrt(-2 * np.log(1 - u[:, 0])), np.float32(TWO_PI) * u[:, 1]
        return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1).reshape(-1)

    def _short(self):
        """Fewer than 16: pairs in float64, cosine first; the sine waits for the next number, even in a later draw."""
        if self._kept is not None:
            value, self._kept = self._kept, None
            return value
        w = self._words(4).astype(np.uint64)
        u1, u2 = ((w[0::2] << np.uint64(32) | w[1::2]) & np.uint64(2**53 - 1)).astype(float) * 2**-53
        r = math.sqrt(-2 * math.log1p(-u2))
        self._kept = r * math.sin(TWO_PI * u1)
        return r * math.cos(TWO_PI * u1)


class TorchCUDA:
    """Philox4x32-10 (Salmon et al. 2011): number k of draw c is hashed from (seed, c, k); no state but c."""

    def __init__(self, seed):
        seed = check_seed(seed)
        self._key = seed % 2**32, seed >> 32
        self._draws = 0

    def randn(self, shape):
        """Normal float32 numbers of any shape, as torch.randn(shape, device="cuda") draws them."""
        n = math.prod(shape)
        x, y = philox(n, self._draws, self._key)[:2]
        self._draws += 1
        u = x.astype(np.float32) * np.float32(2**-32) + np.float32(2**-33)
        v = y.astype(np.float32) * np.float32(TWO_PI * 2**-32) + np.float32(TWO_PI * 2**-33)
        return (np.sqrt(-2 * np.log(u)) * np.sin(v)).reshape(shape)


def philox(n, draw, key, rounds=10):
    """Counters (draw, 0, k, 0) for k < n -> four (n,) arrays of 32-bit words.   Salmon et al. 2011, section 4.3."""
    low = np.uint64(0xFFFFFFFF)
    c = [np.full(n, draw, np.uint64), np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64), np.zeros(n, np.uint64)]
    for r in range(rounds):
        k0, k1 = ((key[0] + r * 0x9E3779B9) % 2**32, (key[1] + r * 0xBB67AE85) % 2**32)
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [b >> np.uint64(32) ^ c[1] ^ np.uint64(k0), b & low, a >> np.uint64(32) ^ c[3] ^ np.uint64(k1), a & low]
    return c


GENERATORS = {"cpu": TorchCPU, "cuda": TorchCUDA}


def latent_noise(generators, shape):
    """Noise for latents of shape (B,H,W,C), drawn in the reference's order (B,C,H,W).

    One generator draws the whole batch; a list of B draws one picture each, as diffusers does."""
    B, H, W, C = shape
    if isinstance(generators, list):
        drawn = np.concatenate([g.randn((1, C, H, W)) for g in generators])
    else:
        drawn = generators.randn((B, C, H, W))
    return np.ascontiguousarray(drawn.transpose(0, 2, 3, 1))
