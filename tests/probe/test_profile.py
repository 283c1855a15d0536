"""The count of each operation's arithmetic, and what is counted at all."""
import numpy as np
import pytest

from minisd.backend import ops
from minisd.probe.profile import Profile, products, profile


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("name, args, expected", [
    ("linear", (zeros(2, 5, 3), zeros(7, 3)), 2 * 10 * 3 * 7),
    ("linear_geglu", (zeros(2, 5, 3), zeros(8, 3), zeros(8)), 2 * 10 * 3 * 8),
    ("conv2d", (zeros(2, 6, 5, 3), zeros(3, 3, 3, 4), zeros(4)), 2 * (2 * 4 * 3) * 9 * 3 * 4),
    ("upsample_conv2d", (zeros(1, 2, 2, 3), zeros(3, 3, 3, 4), zeros(4), (4, 4)), 2 * 16 * 9 * 3 * 4),
    ("norm_conv2d", (zeros(1, 4, 4, 4), (zeros(4), zeros(4)), (zeros(3, 3, 4, 5), zeros(5)), 2, 1e-5), 2 * 16 * 9 * 4 * 5),
    ("residual_block", (zeros(1, 4, 4, 4), (zeros(4), zeros(4)), (zeros(3, 3, 4, 4), zeros(4)), (zeros(4), zeros(4)),
                        (zeros(3, 3, 4, 4), zeros(4)), 2, 1e-5), 2 * 2 * 16 * 9 * 4 * 4),
    ("attention", (zeros(2, 5, 6), zeros(2, 7, 6), zeros(2, 7, 6), 2), 2 * 2 * (2 * 5 * 7 * 6)),
    ("silu", (zeros(4),), 0)])
def test_products(name, args, expected):
    with profile() as p:
        y = getattr(ops, name)(*args)
    assert p.rows[name][2] == products(name, args, {}, y) == expected


def test_products_of_a_residual_block_with_a_shortcut():
    with profile() as p:
        ops.residual_block(zeros(1, 4, 4, 4), (zeros(4), zeros(4)), (zeros(3, 3, 4, 6), zeros(6)), (zeros(6), zeros(6)),
                           (zeros(3, 3, 6, 6), zeros(6)), groups=2, eps=1e-5, shortcut=(zeros(1, 1, 4, 6), zeros(6)))
    assert p.rows["residual_block"][2] == 2 * 16 * (9 * 4 * 6 + 9 * 6 * 6 + 4 * 6)


def test_an_operation_within_another_is_not_counted_twice():
    with ops.definitions_only(), profile() as p:
        ops.linear_geglu(zeros(5, 3), zeros(8, 3), zeros(8))
        ops.gelu(zeros(3))
        ops.gelu(zeros(3))
    assert {name: calls for name, (calls, *_) in p.rows.items()} == {"linear_geglu": 1, "gelu": 2}


def test_it_ends_with_the_block_even_when_that_fails():
    with pytest.raises(ValueError), profile() as p:
        ops.linear(zeros(2, 3), zeros(4, 5))
    ops.gelu(zeros(3))
    assert p.rows == {} and p.seconds > 0


def test_table():
    p = Profile()
    p.rows, p.seconds = {"silu": [2, 1.0, 0], "linear": [5, 2.0, 6e9]}, 4.0
    lines = p.table().split("\n")
    assert lines[1].split() == ["linear", "5", "2.00", "50.0%", "3"] and lines[2].split() == ["silu", "2", "1.00", "25.0%"]
    assert lines[3].split()[-2:] == ["1.00", "25.0%"] and lines[4].split() == ["all", "4.00", "2"]


def test_a_watch_within_another_leaves_it_at_work():
    """minisd.explain() in a program that is profiled."""
    a = np.ones((2, 3), np.float32)
    with profile() as outer:
        ops.silu(a)
        with profile() as inner:
            ops.silu(a)
        ops.silu(a)
    assert (outer.rows["silu"][0], inner.rows["silu"][0]) == (2, 1)
