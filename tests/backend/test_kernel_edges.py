"""Kernels where a mutation of them once went unnoticed: faint and very large numbers, odd tiles, small machines, what is declined."""
import math
import re

import numpy as np
import pytest
from cudaemu import fake, nvrtc
from kernel_checks import check, draw, relative, upload

from minisd.backend import ops


def exactly(cupy, name, *args, **kwargs):
    """(what the kernel finds, the definition in float64)"""
    found = cupy.asnumpy(ops.fast_version(name, cupy.ndarray)(*upload(cupy, list(args)), **kwargs)).astype(np.float64)
    with ops.definitions_only():
        return found, ops.DEFINITIONS[name](*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args), **kwargs)


# ---- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("low", [-100, -2000, -30000])
def test_scores_that_are_all_very_negative(cupy, causal, low):
    """A maximum that begins at 0, or a mask of -60 or -1e4, would drown them.  Products are multiples of 1/128, which float32 adds up to
    131,072 without a rounding (at -100 of 1/256, up to 65,536): so what is off is off after the scores."""
    q, k, v = (draw(1, 70, 16) * 8).round() / 8, (draw(1, 70, 16) * 16).round() / 16, draw(1, 70, 16)
    q[0, :, 0], k[0, :, 0] = 150, np.float16(low * 4 / 150)
    found, exact = exactly(cupy, "attention", q, k, v, heads=1, causal=causal)
    assert relative(found, exact) < 2e-3


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
@pytest.mark.parametrize("name, more", [("group_norm", dict(groups=8)), ("layer_norm", {})])
def test_the_eps_of_a_norm(cupy, name, more, eps):
    """A variance as small as eps shows whether it was added, and which."""
    x = (draw(2, 5, 7, 40).astype(np.float32) * math.sqrt(eps)).astype(np.float16)
    found, exact = exactly(cupy, name, x, np.ones(40, np.float16), np.zeros(40, np.float16), eps=eps, **more)
    assert relative(found, exact) < 2e-3


@pytest.mark.parametrize("name, more", [("group_norm", dict(groups=5)), ("layer_norm", {})])
def test_a_norm_of_zeros_is_its_bias(cupy, name, more):
    """To the last bit: what lies beyond the end of a row adds not even the faintest number to a mean."""
    x, bias = np.zeros((2, 5, 7, 40), np.float16), (np.arange(40) % 3 - 1).astype(np.float16)
    found = cupy.asnumpy(ops.fast_version(name, cupy.ndarray)(*upload(cupy, [x, np.ones(40, np.float16), bias]), eps=1e-5, **more))
    np.testing.assert_array_equal(found, np.broadcast_to(bias, x.shape))


EXACT = {"silu": lambda v: v / (1 + math.exp(-v)), "quick_gelu": lambda v: v / (1 + math.exp(-1.702 * v)),
         "gelu": lambda v: 0.5 * v * math.erfc(-v * math.sqrt(0.5))}


@pytest.mark.parametrize("name", EXACT)
def test_activations_to_their_last_digit(cupy, name):
    """Each value to one rounding of its own, not of the largest: gelu by tanh, or 1.7 for 1.702, would pass the latter."""
    x = np.linspace(-12, 12, 4096).astype(np.float16)
    found = cupy.asnumpy(ops.fast_version(name, cupy.ndarray)(cupy.asarray(x))).astype(float)
    exact = np.array([EXACT[name](float(v)) for v in x])
    assert (np.abs(found - exact) <= 2**-11 * np.abs(exact) * 1.1 + 2e-6).all()
    far = np.float16([-60000, -1000, -100, 100, 1000, 60000])
    np.testing.assert_array_equal(cupy.asnumpy(ops.fast_version(name, cupy.ndarray)(cupy.asarray(far))), np.where(far > 0, far, 0))


@pytest.mark.parametrize("capability", [75, 80])
def test_what_lies_outside_counts_nothing(cupy, arch, capability):
    """Of rows, depths and columns that a tile has too many of, and of a picture's border: 0 to the last bit, whatever it is times."""
    arch(capability)
    exact = [("conv2d", (2, 3, 5, 8), (3, 3, 8, 24), (24,), dict(pad=(1, 1))), ("linear", (9, 40), (24, 40), (24,), {}),
             ("conv2d", (1, 3, 5, 5), (3, 3, 5, 20), (20,), dict(pad=(1, 1))), ("linear", (9, 13), (24, 13), (24,), {})]
    for name, x, weight, bias, kwargs in exact:
        zeros, bias = np.zeros(x, np.float16), draw(*bias)
        found, _ = exactly(cupy, name, zeros, np.full(weight, 6e4, np.float16), bias, **kwargs)
        np.testing.assert_array_equal(found, np.broadcast_to(bias, found.shape))
        found, _ = exactly(cupy, name, np.full(x, 6e4, np.float16), np.zeros(weight, np.float16), bias, **kwargs)
        np.testing.assert_array_equal(found, np.broadcast_to(bias, found.shape))
    hidden = np.full((1, 3, 40), 6e4, np.float16)
    found, _ = exactly(cupy, "attention", np.zeros((1, 5, 40), np.float16), hidden, np.ones((1, 3, 40), np.float16), heads=1)
    np.testing.assert_array_equal(found, 1)


# ---- tiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("O", [1, 3, 5, 20])
def test_a_shared_depth_of_odd_widths(cupy, arch, O):
    """The last block of a tile writes what there is of its columns."""
    from minisd.backend import cuda
    arch(80, 40)
    check(cupy, "conv2d", draw(1, 5, 7, 72), draw(3, 3, 72, O), draw(O), pad=(1, 1), add=draw(1, 5, 7, O))
    assert cupy.ndarray is not fake.ndarray or cuda.tiling(35, O, 9 * 72, 40)[4] > 1


@pytest.mark.parametrize("K, O", [(40, 136), (520, 24)])
def test_geglu_over_several_tiles(cupy, arch, K, O):
    """Where its depth is shared, too: what is gated is the whole sum, since a gate of parts is not part of a gate."""
    from minisd.backend import cuda
    arch(80, 40)
    assert cupy.ndarray is not fake.ndarray or (cuda.tiling(20, 2 * O, K, 40)[4] > 1) == (K == 520)
    check(cupy, "linear_geglu", draw(20, K), draw(2 * O, K) / np.float16(math.sqrt(K) / 2), draw(2 * O))


def test_a_shared_depth_is_left_to_few_tiles(cupy):
    """As many as there are counters; and to blocks that have something to do."""
    from minisd.backend import cuda
    most = 128 * cuda.MOST_TILES
    for M, O, K in ((64, 64, 1 << 20), (most, 8, 4096), (most + 1, 8, 4096), (64, 64, 480), (64, 64, 481)):
        *tile, sharing = cuda.tiling(M, O, K, 1 << 20)
        tiles, steps = -(-M // tile[0]) * -(-O // tile[1]), -(-K // cuda.DEEP)
        assert sharing == 1 or sharing <= cuda.MOST_SHARING and tiles <= cuda.MOST_TILES and steps // sharing >= cuda.LEAST_STEPS
        assert (sharing > 1) == (K > 480 and M <= most), "a million multiprocessors: shared where it may be"


@pytest.mark.parametrize("height, width", [(5, 7), (2, 2)])
def test_an_addend_for_each_picture_after_a_1x1_convolution(cupy, height, width):
    check(cupy, "conv2d", draw(2, height, width, 16), draw(1, 1, 16, 24), draw(24), add=draw(2, 1, 1, 24))


def test_few_rows_by_weights_that_lie_in_columns(cupy):
    from minisd.backend import cuda
    x, w = draw(4, 16), draw(16, 24)
    assert relative(cupy.asnumpy(cuda.linear(cupy.asarray(x), cupy.asarray(w).T)), x.astype(float) @ w.astype(float)) < 1e-3


def test_two_heads_of_512(cupy):
    check(cupy, "attention", draw(1, 20, 1024), draw(1, 20, 1024), draw(1, 20, 1024), heads=2)


ONE_MORE = [("silu", [(257,)], {}), ("gelu", [(1, 513)], {}), ("geglu", [(257, 2)], {}), ("geglu", [(3, 2 * 171)], {}),
            ("concat", [[(2049, 8), (2049, 8)]], {}), ("concat", [[(1, 2048), (1, 16)]], {}), ("layer_norm", [(9, 8), (8,), (8,)], {}),
            ("layer_norm", [(1, 264), (264,), (264,)], {}), ("layer_norm", [(2, 256), (256,), (256,)], {}),
            ("conv2d", [(1, 1, 1, 8), (3, 3, 8, 8), (8,)], dict(pad=(1, 1))), ("conv2d", [(1, 3, 9, 8), (3, 3, 8, 8), (8,)], {}),
            ("linear", [(4, 20), (24, 20), (24,)], {}), ("group_norm", [(1, 2, 1, 4096), (4096,), (4096,)], dict(groups=32, eps=1e-5)),
            ("linear", [(2, 8), (9, 8), (9,)], {}), ("linear", [(1, 264), (8, 264), (8,)], {}), ("linear", [(65, 33), (65, 33), (65,)], {}),
            ("linear", [(129, 40), (129, 40), (129,)], {}), ("conv2d", [(1, 5, 13, 33), (3, 3, 33, 65), (65,)], dict(pad=(1, 1))),
            ("attention", [(1, 129, 40), (1, 65, 40), (1, 65, 40)], dict(heads=1)),
            ("attention", [(1, 65, 160), (1, 33, 160), (1, 33, 160)], dict(heads=1, causal=True)),
            ("group_norm", [(1, 17, 1, 2056), (2056,), (2056,)], dict(groups=257, eps=1e-5)),
            ("group_norm", [(1, 33, 1, 320), (320,), (320,)], dict(groups=320, eps=1e-5, act="silu")),
            ("group_norm", [(3, 5, 1, 1032), (1032,), (1032,)], dict(groups=129, eps=1e-5))]


@pytest.mark.parametrize("name, shapes, kwargs", ONE_MORE, ids=lambda v: str(v) if not isinstance(v, dict) else "")
def test_one_more_than_a_block_takes(cupy, arch, name, shapes, kwargs):
    """Of numbers, rows, columns, groups, keys: the last of them is there, computed by a block or a turn of its own."""
    arch(80, 2)
    check(cupy, name, *([draw(*s) for s in given] if isinstance(given, list) else draw(*given) for given in shapes), **kwargs)


@pytest.mark.parametrize("dim", [512, 514, 520])
def test_more_frequencies_than_threads(cupy, dim):
    t = np.float32([0, 1, 333.25])
    found, exact = exactly(cupy, "timestep_features", t, dim)
    assert found.shape == (3, dim) and np.abs(found - exact).max() < 2e-4


# ---- machines -----------------------------------------------------------------------------------------------------


def test_a_block_of_turing_has_64_kilobytes(emulated, arch, monkeypatch):
    """Products fit; attention 512 wide does not, and the definition that takes its place does not overflow."""
    from minisd.backend import cuda, launch
    arch(75, 1)
    monkeypatch.setattr(fake, "SHARED", 64 << 10)
    monkeypatch.setitem(fake.Device.attributes, "MaxSharedMemoryPerBlockOptin", 64 << 10)
    launch.device.cache_clear()
    check(emulated, "linear", draw(130, 72), draw(136, 72), draw(136))
    check(emulated, "conv2d", draw(1, 9, 7, 72), draw(3, 3, 72, 72), draw(72), pad=(1, 1))
    check(emulated, "attention", draw(1, 5, 160), draw(1, 5, 160), draw(1, 5, 160), heads=1)
    q = draw(1, 3, 512)
    assert cuda.attention(*upload(emulated, [q, q, q]), 1) is NotImplemented
    found = emulated.asnumpy(ops.attention(*upload(emulated, [q * 12, q * 12, q]), heads=1))
    assert np.isfinite(found).all()


def launched(emulated, monkeypatch):
    """One launch of each kernel that has launch bounds: [(name, files, block, defines)]"""
    from minisd.backend import cuda
    asked = []
    monkeypatch.setattr(cuda, "launch", lambda name, files, grid, block, args, shared=0, **defines:
                        asked.append((name, files, block, tuple(sorted(defines.items())))))
    e, vector = emulated.asarray, [emulated.asarray(draw(8))] * 2
    for d in (40, 80, 160, 512):
        cuda.attention(*[e(draw(1, 3, d))] * 3, 1)
    cuda.conv2d(e(draw(1, 4, 4, 8)), e(draw(3, 3, 8, 8)), pad=(1, 1))
    for rows in (4, 9):
        cuda.linear(e(draw(rows, 8)), e(draw(8, 8)))
    cuda.layer_norm(e(draw(4, 8)), *vector)
    cuda.group_norm(e(draw(1, 2, 2, 8)), *vector, 2, 1e-5)
    return asked


def test_no_block_is_larger_than_its_kernel_was_compiled_for(emulated, monkeypatch):
    """A block above __launch_bounds__ does not start on a GPU."""
    from minisd.backend.launch import source
    asked = launched(emulated, monkeypatch)
    assert {name for name, *_ in asked} >= {"attention", "conv2d", "linear", "linear_few", "layer_norm", "group_norm"}
    for name, files, block, defines in asked:
        ptx, _ = nvrtc.compile(source(files, defines), 80, ptx=True)
        bound = re.search(rf"\.entry {name}\(.*?\)\s*\.maxntid (\d+)", ptx, re.S)
        assert bound is None or block <= int(bound[1]), f"{name}: {block} threads, compiled for {bound[1]}"
        assert bound is not None or name in ("layer_norm", "group_norm", "group_sums"), f"{name} says no bound"


# ---- what is declined ---------------------------------------------------------------------------------------------


def test_other_types_are_declined(cupy):
    from minisd.backend import cuda
    x, h, w = (cupy.asarray(np.ones(shape, dtype)) for shape, dtype in
               (((1, 16, 16), np.float32), ((1, 16, 16), np.float16), (16, np.float32)))
    picture, filters = h.reshape(1, 4, 4, 16), cupy.asarray(np.ones((3, 3, 16, 8), np.float32))
    for declined in (cuda.attention(x, x, x, 1), cuda.attention(h, x, h, 1), cuda.attention(h, h, x, 1), cuda.layer_norm(x, w, w),
                     cuda.group_norm(x.reshape(1, 4, 4, 16), w, w, 2, 1e-5), cuda.geglu(x), cuda.linear_geglu(x, x[0], None),
                     cuda.concat([x, x]), cuda.concat([h, x]), cuda.conv2d(picture, filters, pad=(1, 1)),
                     cuda.upsample_conv2d(picture, filters, w[:8], (8, 8)), cuda.linear(h, x[0]), cuda.linears(x[0], [x[0], x[0]]),
                     cuda.linears(h[0], [h[0], x[0]])):
        assert declined is NotImplemented


def test_shapes_at_the_border_are_declined(cupy):
    from minisd.backend import cuda
    e, c = cupy.asarray, cuda
    for width in (168, 200, 504, 520):
        assert c.attention(*[e(draw(1, 3, width))] * 3, 1) is NotImplemented
    x, w = e(draw(9, 16)), e(draw(8, 16))
    assert c.linears(x, [w, w]) is not NotImplemented
    third, norm = e(draw(1, 2, 2, 16)), [e(draw(16))] * 2
    assert c.group_norm(third, *norm, 2, 1e-5, "gelu") is not NotImplemented
    for declined in (c.concat([third] * 3), c.concat([third]), c.group_norm(third, *norm, 2, 1e-5, "tanh"), c.linears(x, [w]),
                     c.linears(x, [w] * 4), c.linears(x[:8], [w, w]), c.linears(x, [w, e(draw(16, 16))]),
                     c.linears(x, [e(draw(16, 8)).T] * 2), c.linears(x, [e(draw(12, 16))] * 2),
                     c.conv2d(e(draw(1, 1, 1, 8)), e(draw(3, 3, 8, 8))), c.conv2d(e(draw(1, 4, 4, 8)), e(draw(1, 1, 8, 8)), stride=2),
                     c.conv2d(e(np.zeros((0, 4, 4, 8), np.float16)), e(draw(3, 3, 8, 8)), pad=(1, 1)),
                     c.linear(e(np.zeros((0, 8), np.float16)), e(draw(8, 8))), c.layer_norm(e(draw(1, 2056)), *[e(draw(2056))] * 2),
                     c.group_norm(e(draw(1, 2, 2, 4104)), *[e(draw(4104))] * 2, 8, 1e-5)):
        assert declined is NotImplemented
