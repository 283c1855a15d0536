"""A kernel's result against its definition's."""
import numpy as np

from minisd.backend import ops

RANDOM = np.random.default_rng(2)


def draw(*shape):
    return RANDOM.standard_normal(shape).astype(np.float16)


def single(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def upload(cupy, value):
    if isinstance(value, list):
        return [upload(cupy, v) for v in value]
    return cupy.asarray(value) if isinstance(value, np.ndarray) else value


def wide(value, dtype=np.float64):
    if isinstance(value, list):
        return [wide(v, dtype) for v in value]
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def relative(found, expected):
    return float(np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max())


def check(cupy, name, *args, version=None, **kwargs):
    """The kernel's error is at most twice that of the definition in float16, or one rounding of the largest value; and at most a hundredth,
    however far off that definition is."""
    with ops.definitions_only():
        expected = np.asarray(ops.DEFINITIONS[name](*map(wide, args), **{k: wide(v) for k, v in kwargs.items()}))
        plain = relative(ops.DEFINITIONS[name](*args, **kwargs), expected)
    run = version or ops.fast_version(name, cupy.ndarray)
    found = run(*upload(cupy, list(args)), **{k: upload(cupy, v) for k, v in kwargs.items()})
    assert found is not NotImplemented, f"{name} declined"
    found = np.asarray([cupy.asnumpy(y) for y in found] if isinstance(found, list) else cupy.asnumpy(found))
    assert found.shape == expected.shape and np.isfinite(found).all()
    error = relative(found, expected)
    assert error <= min(2 * max(plain, 2**-11), 0.01), f"{error:.1e}, the definition in float16 {plain:.1e}"
    return error
