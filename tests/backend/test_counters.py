"""What tests/bench/counters.py says of a launch, against what can be worked out by hand; and that no kernel wastes what it counts."""
import sys
from pathlib import Path

import numpy as np
import pytest
from cudaemu import machine, sass

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))
import counters

pytestmark = pytest.mark.skipif(machine.missing() is not None, reason=str(machine.missing()))
H100 = counters.GPUS["H100"]


def found(cupy, name, *shapes, gpu=H100, **kwargs):
    """{kernel: Counters} of one operation on zeros of these shapes."""
    from minisd.backend import ops
    with counters.Launches(gpu) as launches:
        getattr(ops, name)(*(np.zeros(s, np.float16).view(cupy.ndarray) if isinstance(s, tuple) else s for s in shapes), **kwargs)
    assert launches.by_name().total() == len(launches.found)
    return {c.name: c for _, c, _ in launches.counters()}


def test_a_convolution(emulated):
    """(2,32,32,640) -> 640: a depth of 5760 in 180 steps, shared by three; 16 x 5 tiles."""
    c = found(emulated, "conv2d", (2, 32, 32, 640), (3, 3, 640, 640), (640,), pad=(1, 1))
    assert set(c) == {"conv2d"}
    conv = c["conv2d"]
    assert (conv.blocks, conv.warps, conv.depth) == (16 * 5 * 3, 4, 16) and conv.operations == 2 * 2048 * 640 * 5760
    assert conv.products / conv.matrix_loads == 4 and conv.shared == 4 * (128 + 128) * 32 * 2
    assert 0 <= conv.passes - 240 * 60 * (4 * 2 * 8 * 4 + 128) <= 240 * 5, "a matrix load makes four passes, a tile is written in 128"
    assert conv.passes == conv.least_passes, "and who is last is told in a few"
    read = 240 * 60 * 2 * 128 * 32 * 2                       # bytes of tiles; less where the filter hangs over an edge
    parts = 240 * 128 * 128 * 4
    assert read * .9 < conv.sectors * 32 - 2 * parts - 2048 * 640 * 2 < read * 1.05, "parts are written and read, the sum is written"
    assert 3 * 65536 + 128 * 128 * 2 <= conv.tail * 32 < 1.5 * (3 * 65536 + 128 * 128 * 2), "of the last block: reads three, writes one"
    least, most = conv.estimate(H100)
    assert least < most and least > conv.operations / (132 * H100.tensor * H100.clock * 1e3), "no faster than the tensor cores"
    assert conv.resident(H100) == 2 and conv.bound(H100) in ("tensor cores", "shared memory")
    if conv.loop:
        assert conv.loop["tensor"] == 64 and conv.loop["matrix loads"] == 16


def test_attention(emulated):
    c = found(emulated, "attention", (2, 1024, 320), (2, 1024, 320), (2, 1024, 320), heads=8)["attention"]
    assert c.operations == 2 * 8 * (2 * 1024 * 1024 * (48 + 40)), "scores over 48, of which 8 are zeros"
    assert c.blocks == 8 * 8 * 2 and c.resident(H100) == 3


SERVED = {"conv2d": ((2, 16, 16, 320), (3, 3, 320, 320), (320,), dict(pad=(1, 1))), "linear": ((512, 640), (640, 640), (640,), {}),
          "linear_geglu": ((512, 320), (2560, 320), (2560,), {}),
          "attention, 40": ((1, 256, 320), (1, 256, 320), (1, 256, 320), dict(heads=8)),
          "attention, 64": ((1, 256, 320), (1, 77, 320), (1, 77, 320), dict(heads=5)),
          "attention, 160": ((1, 256, 320), (1, 77, 320), (1, 77, 320), dict(heads=2))}


@pytest.mark.parametrize("gpu", counters.GPUS)
@pytest.mark.parametrize("name", SERVED)
def test_products_wait_for_no_bank(emulated, name, gpu):
    """What they read and write of shared memory takes as few passes as it can."""
    *shapes, kwargs = SERVED[name]
    for c in found(emulated, name.partition(",")[0], *shapes, gpu=counters.GPUS[gpu], **kwargs).values():
        assert c.passes <= (1.15 if c.name == "attention" else 1) * c.least_passes, c.name


def test_group_norm_reads_little_more_than_its_picture(emulated):
    """Each block reads all sums of its picture: with many blocks, or a stride between lanes, that was 35 times the picture."""
    c = found(emulated, "group_norm", (2, 64, 64, 320), (320,), (320,), 32, 1e-5, act="silu")
    assert c["group_norm"].sectors * 32 < 4 * c["group_norm"].bytes and c["group_sums"].sectors * 32 < 3 * c["group_sums"].bytes
    for kernel in c.values():
        assert kernel.lanes > 29.5 * kernel.requests, f"{kernel.name}: hardly a thread is without a column"


def test_weights_of_few_rows_are_read_once(emulated):
    c = found(emulated, "linear", (2, 1280), (640, 1280), (640,))["linear_few"]
    weights = 640 * 1280 * 2
    assert c.products == 0 and weights <= c.sectors * 32 < 3.2 * weights, "and two rows of x for each column"
    eight = found(emulated, "linear", (8, 1280), (640, 1280), (640,))["linear_few"]
    assert c.instructions < .4 * eight.instructions, "no room is kept, and nothing computed, for six that are not there"


def test_more_work_takes_longer_and_a_wait_is_a_bound(emulated):
    small, large = (found(emulated, "linear", (rows, 320), (320, 320), (320,))["linear"] for rows in (2048, 8192))
    assert all(a < b for a, b in zip(small.estimate(H100), large.estimate(H100)))
    t4 = counters.GPUS["T4"]
    assert large.estimate(t4)[0] > 3 * large.estimate(H100)[0]


CODE = """
		Function : k
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                     /* 0x00000a00ff017b82 */
                                                                              /* 0x000fe20000000800 */
        /*0010*/              @!PT LDS RZ, [RZ] ;                             /* 0x0 */
        /*0020*/                   LDSM.16.M88.4 R20, [R20] ;                 /* 0x0 */
        /*0030*/                   HMMA.16816.F32 R84, R88.reuse, R32, R84 ;  /* 0x0 */
        /*0040*/                   VIADD R2, R2, 0x20 ;                       /* 0x0 */
        /*0050*/               @P2 BRA 0x40 ;                                 /* 0x0 */
        /*0060*/              @!P0 BRA 0x10 ;                                 /* 0x0 */
        /*0070*/                   F2FP.F16.F32.PACK_AB R4, R5, R4 ;          /* 0x0 */
        /*0080*/                   EXIT ;                                     /* 0x0 */
        /*0090*/                   BRA 0x90 ;                                 /* 0x0 */
        /*00a0*/                   NOP;                                       /* 0x0 */
		..........

		Function : other
        /*0000*/                   EXIT ;                                     /* 0x0 */
"""


def test_machine_code_is_read():
    code = sass.instructions(CODE, "k")
    assert len(code) == 9 and code[-1][1] == "EXIT"
    assert sass.loops(code) == [(0x40, 0x50), (0x10, 0x60)]
    assert [at for at, *_ in sass.main_loop(code)] == list(range(0x10, 0x70, 0x10)), "that with the products, not the smaller one"
    assert sass.mix(code) == {"integer": 2, "control": 4, "matrix loads": 1, "tensor": 1, "float": 1}
    assert len(sass.main_loop(sass.instructions(CODE, "other"))) == 0
