"""Does every operation compute what its definition says, on this machine?  Each is run in float32, by its fast version
where it has one, and held against its definition in float64."""
import numpy as np

from ..backend import convolution, cpu, ops  # noqa: F401  (they register their versions)

TOLERANCE = 2e-5                                             # of the largest value; float32 rounding is 6e-8 a step


def cases(draw):
    """(operation, arguments, keywords) at sizes that divide nothing."""
    x, wide = draw(2, 7, 9, 24), draw(2, 37, 48)
    for name in ("exp", "sigmoid", "silu", "quick_gelu", "erf", "gelu", "relu", "tanh"):
        yield name, (wide,), {}
    yield "geglu", (wide,), {}
    yield "embedding", (draw(11, 5), np.array([[3, 0, 10]])), {}
    yield "vector_of", (draw(2, 5, 6), np.array([[1, 9, 2, 9, 9], [9, 0, 0, 1, 2]]), 9), {}
    yield "linear", (wide, draw(20, 48), draw(20)), {}
    yield "linear", (wide, draw(20, 48)), {}
    yield "linears", (wide, [draw(24, 48), draw(24, 48), draw(24, 48)]), {}
    yield "linears", (wide, [draw(40, 48), draw(40, 48)]), {}
    yield "linear", (wide, draw(20, 48), draw(20), draw(2, 37, 20)), {}
    yield "linear_geglu", (wide, draw(40, 48), draw(40)), {}
    yield "layer_norm", (wide, draw(48), draw(48)), {}
    for act in (None, "silu"):
        yield "group_norm", (x, draw(24), draw(24)), dict(groups=8, eps=1e-5, act=act)
    for k, stride, pad in ((3, 1, (1, 1)), (3, 2, (1, 1)), (3, 2, (0, 1)), (1, 1, (0, 0))):
        yield "conv2d", (x, draw(k, k, 24, 5), draw(5)), dict(stride=stride, pad=pad)
    yield "conv2d", (x, draw(3, 3, 24, 5)), dict(pad=(1, 1))
    picture, w, b = draw(2, 33, 38, 24), draw(3, 3, 24, 20), draw(20)
    yield "conv2d", (picture, w, b), dict(pad=(1, 1))
    yield "conv2d", (picture, w), dict(pad=(1, 1))
    for add in (draw(2, 1, 1, 20), draw(2, 33, 38, 20)):
        yield "norm_conv2d", (picture, [draw(24), draw(24)], [w, b]), dict(groups=8, eps=1e-5, add=add)
    yield "norm_conv2d", (x, [draw(24), draw(24)], [w, b]), dict(groups=8, eps=1e-5, add=draw(2, 7, 9, 20))
    for a, shift in ((picture, draw(2, 1, 1, 20)), (x, None)):
        yield "residual_block", (a, [draw(24), draw(24)], [w, b], [draw(20), draw(20)], [draw(3, 3, 20, 20), draw(20)]), dict(
            groups=4, eps=1e-5, shift=shift, shortcut=[draw(1, 1, 24, 20), draw(20)])
    yield "residual_block", (picture, [draw(24), draw(24)], [draw(3, 3, 24, 24), draw(24)], [draw(24), draw(24)],
                             [draw(3, 3, 24, 24), draw(24)]), dict(groups=8, eps=1e-5)
    yield "upsample_conv2d", (draw(2, 17, 19, 24), w, b), dict(size=(34, 38))
    yield "upsample_conv2d", (x, w, b), dict(size=(13, 18))
    yield "attention", (draw(2, 37, 48), draw(2, 13, 48), draw(2, 13, 48)), dict(heads=3)
    yield "attention", (wide, draw(2, 37, 48), draw(2, 37, 48)), dict(heads=1, causal=True)
    yield "concat", ([wide, draw(2, 37, 5)],), {}
    yield "upsample_to", (x, (13, 18)), {}
    yield "timestep_features", (np.float32([0, 1, 946.4, 999]), 32), {}


def wide_cases(draw):
    """The same at the widths that Stable Diffusion has, for kernels that are compiled for a width."""
    for d in (40, 64, 80, 128, 160, 512):
        yield "attention", (draw(1, 100, d), draw(1, 77, d), draw(1, 77, d)), dict(heads=1)
    for C, O in ((4, 320), (9, 320), (320, 320), (320, 4), (128, 3)):
        yield "conv2d", (draw(1, 8, 8, C), draw(3, 3, C, O), draw(O)), dict(pad=(1, 1))
    yield "upsample_conv2d", (draw(1, 4, 4, 320), draw(3, 3, 320, 320), draw(320)), dict(size=(8, 8))
    yield "group_norm", (draw(1, 8, 8, 320), draw(320), draw(320)), dict(groups=32, eps=1e-5, act="silu")
    yield "linear_geglu", (draw(64, 320), draw(2560, 320), draw(2560)), {}
    yield "concat", ([draw(1, 8, 8, 320), draw(1, 8, 8, 640)],), {}


def each(change, value):
    """change(array) for every floating-point array within `value`, a list or an array or anything else."""
    if isinstance(value, list):
        return [each(change, v) for v in value]
    return change(value) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


def selftest(seed=0, device="cpu"):
    """[(operation, shapes, "fast" or "definition", error relative to the largest value, whether it is small enough)]

    On a CPU in float32, within TOLERANCE.  On device "cuda" in float16, where "fast" is our kernel: within twice the error of the
    definition in float16, which calibrates itself (Dao's tests of FlashAttention do so), or of one rounding of the result.
    Raises InputError where there is no such device."""
    from ..backend.device import open_device
    place, random, rows = open_device(device), np.random.default_rng(seed), []
    dtype = np.float32 if device == "cpu" else np.float16

    def draw(*shape):
        return random.standard_normal(shape).astype(np.float32)

    for name, args, kwargs in [*cases(draw), *(wide_cases(draw) if device != "cpu" else ())]:
        def given(change, args=args, kwargs=kwargs):
            return [each(change, a) for a in args], {k: each(change, v) for k, v in kwargs.items()}

        lowered = given(lambda a: a.astype(dtype))
        exact = given(lambda a: a.astype(dtype).astype(np.float64))
        with ops.definitions_only():
            expected = np.asarray(ops.DEFINITIONS[name](*exact[0], **exact[1]))

        def error(found, expected=expected):
            return float(np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max())

        args, kwargs = lowered if device == "cpu" else given(lambda a: place.upload(a.astype(dtype)))
        found, fast = ops.serve(name, *args, **kwargs)
        version = "fast" if fast else "definition"
        bound = TOLERANCE
        if device != "cpu":
            with ops.definitions_only():
                bound = 2 * max(error(ops.DEFINITIONS[name](*lowered[0], **lowered[1])), 2**-11)
        found = list(map(place.download, found)) if isinstance(found, list) else place.download(found)
        arrays = [a for arg in args for a in (arg if isinstance(arg, list) else [arg])]
        shapes = " ".join(str(a.shape).replace(" ", "") for a in arrays if hasattr(a, "shape"))
        rows.append((name, shapes, version, error(found), error(found) <= bound))
    return rows
