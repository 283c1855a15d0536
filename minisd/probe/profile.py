"""Where the time goes: calls, seconds and arithmetic of each operation, while `with profile() as p` lasts."""
import time
from contextlib import contextmanager

import numpy as np

from ..backend import ops, threads


def products(name, args, kwargs, y):
    """Floating-point operations in the matrix products of one call as the definition has them, whatever a fast version saves;
    0 where there are none."""
    if not hasattr(y, "size"):                               # a dry run, of a model that is loaded meanwhile
        return 0
    if name in ("linear", "linear_geglu"):
        return 2 * args[0].size * args[1].shape[0]
    if name in ("conv2d", "norm_conv2d", "upsample_conv2d"):
        weight = args[2][0] if name == "norm_conv2d" else args[1]
        return 2 * y.size * int(np.prod(weight.shape[:3]))
    if name == "residual_block":
        shortcut = kwargs.get("shortcut")
        weights = [args[2][0], args[4][0], *([] if shortcut is None else shortcut[:1])]
        return 2 * y.size // y.shape[-1] * sum(w.size for w in weights)
    if name == "attention":
        return 4 * args[0].size * args[1].shape[1]
    return 0


class Profile:
    """rows: {operation: [calls, seconds, floating-point operations]}; seconds: of the whole; gpu: whether one computed."""

    def __init__(self):
        self.rows, self.seconds, self.gpu = {}, 0.0, False

    def __call__(self, name, run, *args, **kwargs):
        start = time.perf_counter()
        y = run(*args, **kwargs)
        ops.wait_for(y)
        self.gpu |= ops.xp_of(y) is not np
        row = self.rows.setdefault(name, [0, 0.0, 0])
        row[0] += 1
        row[1] += time.perf_counter() - start
        row[2] += products(name, args, kwargs, y)
        return y

    def table(self):
        """The rows as text, slowest first."""
        lines = [f"{'operation':<18}{'calls':>8}{'seconds':>10}{'share':>8}{'GFLOP/s':>9}"]
        for name, (calls, seconds, flops) in sorted(self.rows.items(), key=lambda row: -row[1][1]):
            rate = f"{flops / seconds / 1e9:.0f}" if flops else ""
            lines.append(f"{name:<18}{calls:>8}{seconds:>10.2f}{seconds / self.seconds:>8.1%}{rate:>9}")
        rest = self.seconds - sum(seconds for _, seconds, _ in self.rows.values())
        lines.append(f"{'reading, the rest':<18}{'':>8}{rest:>10.2f}{rest / self.seconds:>8.1%}")
        total = sum(flops for *_, flops in self.rows.values())
        lines.append(f"{'all':<18}{'':>8}{self.seconds:>10.2f}{'':>8}{total / self.seconds / 1e9:>9.0f}")
        where = "GPU, each operation waited for, nothing recorded" if self.gpu else (
            f"{threads.count()} threads; NumPy's products: {threads.blas()}")
        lines.append(f"{where}; GFLOP/s as the definitions count")
        return "\n".join(lines)


@contextmanager
def profile():
    """Times every operation meanwhile: `with profile() as p: pipe.txt2img(...)`, then p.table()."""
    found, start = Profile(), time.perf_counter()
    try:
        with ops.watch(found):
            yield found
    finally:
        found.seconds = time.perf_counter() - start
