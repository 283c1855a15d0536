"""The definitions against plainer ones still: loops, and Python's own mathematics."""
import math

import numpy as np
import pytest
from kernel_checks import RANDOM

from minisd.backend import ops
from minisd.checkpoint.shapes import Shape
from minisd.probe import selftest


def draw(*shape):
    return RANDOM.standard_normal(shape)


def test_erf_and_gelu():
    x = np.linspace(-6, 6, 1001)
    assert np.abs(ops.erf.definition(x) - [math.erf(v) for v in x]).max() < 1.5e-7
    assert np.abs(ops.gelu(x) - [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]).max() < 1e-6


def test_sigmoid_does_not_overflow():
    x = np.float32([-1e4, -90, 0, 90, 1e4])
    assert np.allclose(ops.sigmoid(x), [0, 0, 0.5, 1, 1], atol=1e-7)
    assert np.array_equal(ops.silu(x)[[0, 4]], [0, 1e4])


def test_attention_of_half_precision_does_not_overflow():
    """Scores of 73,728 before they are divided by the root of 512, 3,258 after."""
    q = np.full((1, 3, 512), 12, np.float16)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(ops.attention.definition(q, q, q, 1), q)


@pytest.mark.parametrize("k, stride, pad", [(3, 1, (1, 1)), (3, 2, (1, 1)), (3, 2, (0, 1)), (1, 1, (0, 0))])
def test_conv2d(k, stride, pad):
    x, w, b = draw(2, 5, 6, 3), draw(k, k, 3, 4), draw(4)
    padded = np.zeros((2, 5 + sum(pad), 6 + sum(pad), 3))
    padded[:, pad[0]:pad[0] + 5, pad[0]:pad[0] + 6] = x
    y = ops.conv2d.definition(x, w, b, stride=stride, pad=pad)
    for n, i, j, o in np.ndindex(y.shape):
        patch = padded[n, i * stride:i * stride + k, j * stride:j * stride + k]
        assert math.isclose(y[n, i, j, o], (patch * w[..., o]).sum() + b[o], abs_tol=1e-9)


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal):
    q, k, v = draw(2, 5, 6), draw(2, 5, 6), draw(2, 5, 6)
    y = ops.attention.definition(q, k, v, heads=2, causal=causal)
    for b, n, h in np.ndindex(2, 5, 2):
        d = slice(3 * h, 3 * h + 3)
        seen = range(n + 1) if causal else range(5)
        e = [math.exp(q[b, n, d] @ k[b, m, d] / math.sqrt(3)) for m in seen]
        expected = sum(w * v[b, m, d] for w, m in zip(e, seen)) / sum(e)
        assert np.allclose(y[b, n, d], expected)


def test_group_norm_normalises_each_group():
    x = 5 + 3 * draw(2, 4, 4, 6)
    y = ops.group_norm.definition(x, np.ones(6), np.zeros(6), groups=3, eps=0)
    groups = y.reshape(2, 16, 3, 2)
    assert np.allclose(groups.mean((1, 3)), 0) and np.allclose(groups.var((1, 3)), 1)


def test_group_norm_holds_far_from_zero():
    """A mean of 1000 beside a deviation of 1: float32 sums alone would lose it."""
    x = (1000 + draw(1, 64, 64, 32)).astype(np.float32)
    y = ops.group_norm.definition(x, np.ones(32, np.float32), np.zeros(32, np.float32), groups=4, eps=1e-6)
    z = ops.group_norm.definition(x.astype(float), np.ones(32), np.zeros(32), groups=4, eps=1e-6)
    assert np.abs(y - z).max() < 1e-4


def test_layer_norm():
    x = draw(3, 7)
    y = ops.layer_norm(x, 2 * np.ones(7), np.ones(7), eps=0)
    assert np.allclose(y.mean(-1), 1) and np.allclose(y.std(-1), 2)


def test_upsample_to_odd_sizes():
    x = np.arange(6.0).reshape(1, 2, 3, 1)
    assert ops.upsample_to(x, (3, 5))[0, :, :, 0].tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]


def test_timestep_features():
    y = ops.timestep_features(np.float32([0, 500]), 8)
    assert y[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0], "cosines first"
    assert math.isclose(y[1, 5], math.sin(500 * 10000 ** (-1 / 4)), abs_tol=1e-4)


# ---- fast versions and the table ----


@pytest.mark.usefixtures("fast_versions")
def test_selftest_finds_every_operation_right():
    rows = selftest.selftest()
    assert {row[0] for row in rows} == set(ops.DEFINITIONS)
    assert all(ok for *_, ok in rows), rows


@pytest.mark.usefixtures("fast_versions")
def test_definitions_only():
    """While it lasts, no fast version is asked; afterwards they are."""
    x, w, b = (draw(*s).astype(np.float32) for s in ((1, 32, 32, 16), (3, 3, 16, 4), (4,)))
    defined = ops.conv2d.definition(x, w, b, pad=(1, 1))
    with ops.definitions_only():
        assert np.array_equal(ops.conv2d(x, w, b, pad=(1, 1)), defined)
    assert not np.array_equal(ops.conv2d(x, w, b, pad=(1, 1)), defined), "Winograd's rounding is another"


def test_the_array_decides_and_may_be_declined():
    calls = []

    @ops.fast(type("Odd", (), {}), "silu")
    def silu(x):
        calls.append(x)
        return NotImplemented

    kind = next(k for n, k in ops._fast if n == "silu" and k.__name__ == "Odd")
    odd = kind()
    odd.__class__.__mul__ = lambda self, other: "defined"
    odd.__class__.__rmul__ = odd.__class__.__mul__
    try:
        with pytest.raises(TypeError):                       # the definition ran: an Odd has no tanh
            ops.silu(odd)
        assert calls == [odd]
    finally:
        del ops._fast["silu", kind]


def test_a_version_of_nothing_is_refused():
    with pytest.raises(KeyError, match="stands in for no operation"):
        ops.fast(np.ndarray)(lambda x: x)


@pytest.mark.parametrize("name, args, kwargs", list(selftest.cases(lambda *s: draw(*s).astype(np.float32))))
def test_a_dry_run_knows_every_operations_shape(name, args, kwargs):
    def each(y):
        return [part.shape for part in y] if isinstance(y, list) else y.shape

    def shape(a):
        return [shape(x) for x in a] if isinstance(a, list) else Shape(a.shape, "given") if isinstance(a, np.ndarray) else a

    version = ops.fast_version(name, Shape)
    assert version is not None
    assert each(version(*map(shape, args), **{k: shape(v) for k, v in kwargs.items()})) == each(ops.DEFINITIONS[name](*args, **kwargs))
