"""The machine that runs kernels on a CPU, checked itself: it computes what a GPU would, and reports what a GPU would not."""
import numpy as np
import pytest
from cudaemu import machine, nvrtc
from cudaemu.machine import KernelError, Module
from cudaemu.translate import Unknown, translate
from kernel_checks import RANDOM

pytestmark = pytest.mark.skipif(machine.missing() is not None, reason=str(machine.missing()))
i32, f32 = np.int32, np.float32


def run(source, *args, grid=(1,), block=(32,), name="k", arch=80, **how):
    return Module(f"#include <cuda_fp16.h>\n#line 1 \"{name}.cu\"\n{source}", arch).launch(name, grid, block, list(args), **how)


def nan(*shape, dtype=f32):
    return np.full(shape, np.nan, dtype) if np.dtype(dtype).kind == "f" else np.full(shape, -1, dtype)


# ---- it computes what the source says ----------------------------------------------------------------------------

MATHS = {
    "expf(v)": np.exp,
    "tanhf(v)": np.tanh,
    "logf(fabsf(v) + 1)": lambda v: np.log(abs(v) + 1),
    "sinf(v)": np.sin,
    "cosf(v * 1e5f)": lambda v: np.cos((v * f32(1e5)).astype(float)),
    "sqrtf(fabsf(v))": lambda v: np.sqrt(abs(v)),
    "rsqrtf(fabsf(v) + 1)": lambda v: 1 / np.sqrt(abs(v) + 1),
    "floorf(v * 3)": lambda v: np.floor(v * 3),
    "rintf(v * 3)": lambda v: np.rint(v * 3),
    "(float)(int)(v * 10)": lambda v: np.trunc(v * f32(10)),
    "fmodf(v, 0.7f)": lambda v: np.fmod(v, f32(0.7)),
    "fminf(fmaxf(v, -.5f), .5f)": lambda v: v.clip(-0.5, 0.5),
    "powf(fabsf(v) + .5f, 1.5f)": lambda v: (abs(v) + 0.5) ** 1.5,
    "__saturatef(v)": lambda v: v.clip(0, 1),
    "v > 0 ? v : 0.1f * v": lambda v: np.where(v > 0, v, 0.1 * v),
    "__fdividef(1, v)": lambda v: 1 / v,
    "(float)((double)v * 1.0000001)": lambda v: v * 1.0000001,
    "__half2float(__float2half(v))": lambda v: v.astype(np.float16),
    "copysignf(2.f, v)": lambda v: np.copysign(2, v),
    "isnan(v) ? 1.f : 2.f": lambda v: 0 * v + 2,
    "1e30f * v * 1e30f": lambda v: np.sign(v) * np.inf,
}


def test_mathematics():
    v, y = RANDOM.standard_normal(50).astype(f32), nan(len(MATHS), 50)
    lines = "".join(f"y[{50 * i} + threadIdx.x] = {e};\n" for i, e in enumerate(MATHS))
    run(f'extern "C" __global__ void k(const float* x, float* y) {{ if (threadIdx.x >= 50) return;\nfloat v = x[threadIdx.x];\n{lines}}}',
        v, y, block=(64,))
    for row, (name, function) in zip(y, MATHS.items()):
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(row, function(v), rtol=2e-5, atol=2e-6, err_msg=name)


def bits(n): return n & 0xffffffff
def trunc(a, b): return int(a / b)
def bytes_of(n): return bits(n).to_bytes(4, "little")


INTEGERS = {
    "v / 7": lambda n: trunc(n, 7),
    "v % 7": lambda n: n - 7 * trunc(n, 7),
    "v >> 3": lambda n: n >> 3,
    "v << 5": lambda n: n << 5,
    "(unsigned)v >> 28": lambda n: bits(n) >> 28,
    "v ^ 0x55": lambda n: n ^ 0x55,
    "~v & 0xff": lambda n: ~n & 255,
    "min(v, 9) - max(v, -3)": lambda n: min(n, 9) - max(n, -3),
    "abs(v)": abs,
    "v > 0 && v < 100000": lambda n: 0 < n < 100000,
    "((long long)v * 123456789) >> 20": lambda n: n * 123456789 >> 20,
    "__umulhi(v, 123456789)": lambda n: bits(n) * 123456789 >> 32,
    "__popc(v)": lambda n: bin(bits(n)).count("1"),
    "__clz(v)": lambda n: 32 - bits(n).bit_length(),
    "__byte_perm(v, v + 1, 0x5140)": lambda n: int.from_bytes([(bytes_of(n) + bytes_of(n + 1))[i] for i in (0, 4, 1, 5)], "little"),
    "__funnelshift_l(v, v * 3, 9)": lambda n: (bits(n * 3) << 32 | bits(n)) << 9 >> 32,
}


def test_integers_loops_and_local_arrays():
    v, y, z = RANDOM.integers(-10**6, 10**6, 32), nan(len(INTEGERS), 32, dtype=i32), nan(32, dtype=i32)
    lines = "".join(f"y[{32 * i} + threadIdx.x] = {e};\n" for i, e in enumerate(INTEGERS))
    run('__constant__ int table[8] = {3, 1, 4, 1, 5, 9, 2, 6};\n'
        f'extern "C" __global__ void k(const int* x, int* y, int* z) {{ int v = x[threadIdx.x];\n{lines} int local[8], sum = 0;\n'
        'for (int i = 0; i < 8; i++) local[i] = v * i + table[i];\n'
        'for (int i = 0; i < (v & 7); i++) sum += local[(v + i) & 7]; z[threadIdx.x] = sum; }', v.astype(i32), y, z)
    for row, (name, function) in zip(y, INTEGERS.items()):
        assert row.tolist() == [(bits(int(function(n))) ^ 2**31) - 2**31 for n in v.tolist()], name
    table = [3, 1, 4, 1, 5, 9, 2, 6]
    assert z.tolist() == [sum(n * (n + i & 7) + table[n + i & 7] for i in range(n & 7)) for n in v.tolist()]


def test_halves_two_at_a_time():
    x, w = (RANDOM.standard_normal(64).astype(np.float16) for _ in "ab")
    y = nan(64, dtype=np.float16)
    run('extern "C" __global__ void k(const __half2* x, const __half2* w, __half2* y) { int i = threadIdx.x;'
        'y[i] = __hmax2(__hfma2(x[i], w[i], __float2half2_rn(.5f)), __hmul2(x[i], x[i])); }', x, w, y)
    fma = (x.astype(f32) * w.astype(f32) + f32(0.5)).astype(np.float16)
    np.testing.assert_array_equal(y, np.maximum(fma, (x.astype(f32) ** 2).astype(np.float16)))


def test_what_a_warp_does_together():
    v, y = RANDOM.standard_normal(32).astype(f32), nan(7, 32)
    run('extern "C" __global__ void k(const float* x, float* y) { int l = threadIdx.x; float v = x[l]; unsigned all = ~0u;'
        'y[l] = __shfl_down_sync(all, v, 3); y[32 + l] = __shfl_up_sync(all, v, 2); y[64 + l] = __shfl_sync(all, v, 5);'
        'y[96 + l] = __shfl_xor_sync(all, v, 1, 8); y[128 + l] = __ballot_sync(all, v > 0) & 0xffff; y[160 + l] = __any_sync(all, v > 9);'
        'if (l < 8) y[192 + l] = __shfl_xor_sync(0xff, v, 4); else y[192 + l] = 0; }', v, y)
    lane = np.arange(32)
    np.testing.assert_array_equal(y[0], v[np.where(lane + 3 < 32, lane + 3, lane)])
    np.testing.assert_array_equal(y[1], v[np.where(lane >= 2, lane - 2, lane)])
    np.testing.assert_array_equal(y[2], v[5])
    np.testing.assert_array_equal(y[3], v[lane ^ 1])
    np.testing.assert_array_equal(y[4], sum(1 << i for i in range(16) if v[i] > 0))
    np.testing.assert_array_equal(y[5], 0)
    np.testing.assert_array_equal(y[6][:8], v[lane[:8] ^ 4])


@pytest.mark.parametrize("arch", [75, 80, 90])
def test_tensor_cores(arch):
    """d (16,8) = a (16,16) b (16,8) by way of ldmatrix and mma."""
    from kernel_sources import devkit
    a, b, d = *(RANDOM.standard_normal((16, n)).astype(np.float16) for n in (16, 8)), nan(16, 8)
    launch = run(devkit() + 'extern "C" __global__ void k(const __half* a, const __half* b, float* d) { int l = threadIdx.x;\n'
                 '__shared__ __align__(16) __half as[16 * 24], bs[16 * 8];\n'
                 'for (int i = l; i < 256; i += 32) as[i / 16 * 24 + i % 16] = a[i];\n'
                 'for (int i = l; i < 128; i += 32) bs[i] = b[i]; __syncthreads(); unsigned f[4], g0, g1; float s[4] = {};\n'
                 'load_matrices(f, as + l % 16 * 24 + l / 16 * 8);\n'
                 'load_2_matrices_transposed(g0, g1, bs + l % 16 * 8); multiply_add(s, f, g0, g1);\n'
                 'for (int e = 0; e < 4; e++) d[(l / 4 + e / 2 * 8) * 8 + l % 4 * 2 + e % 2] = s[e]; }', a, b, d, arch=arch)
    np.testing.assert_allclose(d, a.astype(f32) @ b.astype(f32), rtol=1e-5, atol=1e-5)
    assert launch.products == (2 if arch == 75 else 1) and launch.conflicts == 0


def test_bank_conflicts_are_counted():
    """Rows 128 bytes apart all lie in the same banks."""
    from kernel_sources import devkit
    launch = run(devkit() + 'extern "C" __global__ void k(unsigned* y) { __shared__ __align__(16) __half s[8 * 64]; int l = threadIdx.x;\n'
                 'for (int i = l; i < 512; i += 32) s[i] = __float2half(1.f); __syncthreads(); unsigned f[4];\n'
                 'load_matrices(f, s + l % 8 * 64); y[l] = f[0] + f[1] + f[2] + f[3]; }', np.zeros(32, np.uint32))
    assert launch.conflicts == 4 * 7


@pytest.mark.parametrize("index, sectors", [("i", 4), ("2 * i", 8), ("32 * i", 32), ("i / 8", 1), ("i + 1", 5)])
def test_sectors_of_global_memory_are_counted(index, sectors):
    """32 bytes each: 32 floats side by side take 4, or 5 where they do not begin with one."""
    x = np.zeros(2048, f32)                                  # NumPy's memory begins at a multiple of 16, not of 32
    x = x[-x.ctypes.data // 4 % 8:][:1024]
    source = 'extern "C" __global__ void k(float* x) {{ int i = threadIdx.x; if (i < {}) x[{}] = 1; }}'
    launch = run(source.format(40, f"({index}) % 1024"), x, block=(128,), grid=(5,), blocks=[(3, 0, 0)], races=False)
    [(op, line, there, shared)] = launch.asked
    assert op.startswith("st.global") and line & 0xffff == 1 and shared["requests"] == 0
    assert there["requests"] == 2 and there["lanes"] == 40, "of four warps one whole and 8 lanes of another"
    [(_, _, there, _)] = run(source.format(32, index), x, blocks=[(0, 0, 0)], races=False).asked
    assert there["requests"] == 1 and there["sectors"] == sectors


def test_a_loops_requests_are_counted_each():
    x = np.zeros(1024, f32)
    source = 'extern "C" __global__ void k(float* x, int n) { for (int i = threadIdx.x; i < n; i += 64) x[i] += 1; }'
    launch = run(source, x, i32(1024), block=(64,), blocks=[(0, 0, 0)])
    for kind in ("ld", "st"):
        assert sum(int(there["lanes"]) for op, _, there, _ in launch.asked if op.startswith(kind)) == 1024
        assert sum(int(there["requests"]) for op, _, there, _ in launch.asked if op.startswith(kind)) == 32


@pytest.mark.parametrize("type, index, wavefronts, least", [
    ("float", "i", 1, 1), ("float", "2 * i", 2, 1), ("float", "32 * i", 32, 1), ("float", "33 * i", 1, 1), ("float", "0", 1, 1),
    ("float4", "i", 4, 4), ("float4", "2 * i", 8, 4), ("float2", "i", 2, 2), ("__half", "i", 1, 1), ("__half", "64 * i", 32, 1)])
def test_passes_over_shared_memory_are_counted(type, index, wavefronts, least):
    """32 banks of 4 bytes: in one pass, lanes that ask for different banks or for the same word, 128 bytes of them at most."""
    launch = run(f'extern "C" __global__ void k(const {type}* x) {{ extern __shared__ __align__(16) {type} s[]; int i = threadIdx.x;\n'
                 f's[{index}] = x[i]; }}', np.zeros(256, f32), shared=16 << 10, blocks=[(0, 0, 0)], races=False)
    [there] = [shared for _, _, _, shared in launch.asked if shared["requests"]]
    assert (there["requests"], there["lanes"], there["wavefronts"], there["least"]) == (1, 32, wavefronts, least)


def test_matrices_and_asynchronous_copies_are_counted():
    from kernel_sources import devkit
    source = (
        'extern "C" __global__ void k(const __half* x, unsigned* y) {{ __shared__ __align__(16) __half s[8 * 72]; int l = threadIdx.x;\n'
        'copy16(s + l / 4 * {0} + l % 4 * 8, x + l * 8, l < 24); copies_commit(); copies_wait<0>(); __syncthreads();\n'
        'unsigned f[4]; '
        'load_matrices(f, s + l % 8 * {0}); y[l] = f[0] + f[1] + f[2] + f[3]; }}')
    for row, passes in ((64, 8), (72, 1)):                   # 128 bytes: all eight rows in the same banks;  144: in different ones
        given = np.zeros(256, np.float16), np.zeros(32, np.uint32)
        asked = run(devkit() + source.format(row), *given, blocks=[(0, 0, 0)], races=False).asked
        [copy] = [(there, shared) for op, _, there, shared in asked if op.startswith("cp.async")]
        assert copy[0]["lanes"] == 24 and copy[1]["lanes"] == 32, "24 lanes fetch, and all of them write"
        [matrix] = [shared for op, _, _, shared in asked if op.startswith("ldmatrix")]
        assert (matrix["wavefronts"], matrix["least"]) == (4 * passes, 4)


def test_a_read_of_what_no_kernel_wrote():
    """Of an array begun empty; a launch may read what one before it wrote."""
    fill = 'extern "C" __global__ void k(int* y) { if (threadIdx.x < 31) y[threadIdx.x] = 1; }'
    add = 'extern "C" __global__ void k(int* y, int n) { if (threadIdx.x < n) y[threadIdx.x] += 1; }'
    y = np.zeros(32, i32)
    machine.begin_unwritten(y)
    run(fill, y)
    run(add, y, i32(31))
    with pytest.raises(KernelError, match=r"read of byte 124 of a buffer, which nobody ever wrote .*thread 31.*k\.cu:1"):
        run(add, y, i32(32))
    machine.written_of(y, whole=True)
    run(add, y, i32(32))


def test_dynamic_shared_memory_and_three_dimensional_grids():
    y = nan(2, 3, 4, dtype=i32)
    run('extern "C" __global__ void k(int* y) { extern __shared__ int s[]; s[threadIdx.x] = threadIdx.x; __syncthreads();'
        'int at = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;'
        'if (threadIdx.x == 0) y[at] = 100 * at + s[blockDim.x - 1]; }', y,
        grid=(4, 3, 2), block=(48,), shared=192)
    assert y.reshape(-1).tolist() == [100 * i + 47 for i in range(24)]


# ---- it reports what a GPU would not -----------------------------------------------------------------------------

BAD = {
    "race: a .* of what was": '__shared__ int s[64]; s[threadIdx.x] = 1; __syncthreads(); int a = s[63 - threadIdx.x]; s[threadIdx.x] = 2;'
                              'y[threadIdx.x] = a;',
    "race: a (read|write) of what was": 'if (threadIdx.x == 0) y[0] = 1; if (threadIdx.x == 40) y[1] = y[0];',
    "race: two writes": '__shared__ int s[1]; s[0] = threadIdx.x; __syncthreads(); y[threadIdx.x] = s[0];',
    "of another block": 'if (threadIdx.x == 0) y[0] = blockIdx.x;',
    "out of bounds": 'y[threadIdx.x + 65] = 1;',
    "out of bounds: at byte -4": 'y[(int)threadIdx.x - 1] = 1;',
    "runs over the end": 'int4 v = ((const int4*)x)[threadIdx.x % 16]; y[threadIdx.x] = v.x + v.y + v.z + v.w;',
    "multiple of it": 'if (threadIdx.x == 0) *(int2*)(y + 1) = make_int2(1, 2);',
    "never wrote": '__shared__ int s[64]; if (threadIdx.x < 63) s[threadIdx.x] = 1; __syncthreads(); y[threadIdx.x] = s[threadIdx.x];',
    "read-only": '((int*)x)[threadIdx.x] = 1;',
    "two different barriers": 'if (threadIdx.x < 32) __syncthreads(); else { y[threadIdx.x] = x[0]; __syncthreads(); }',
    "have returned": 'if (threadIdx.x < 5) return; __syncthreads(); y[threadIdx.x] = 1;',
    "lanes of its warp that do not come": 'int v = x[0]; if (threadIdx.x % 32 < 31) v = __shfl_xor_sync(~0u, v, 1); __syncthreads();'
                                          'y[threadIdx.x] = v;',
    "not in the mask": 'int v = x[0]; if (threadIdx.x % 32 < 3) v = __shfl_xor_sync(0x7, v, 2); __syncwarp(); y[threadIdx.x] = v;',
    "ld.global.nc of memory": 'y[threadIdx.x] = 1; __syncthreads(); y[threadIdx.x] = __ldg(y + 63 - threadIdx.x);',
    "division by zero": 'y[threadIdx.x] = (int)threadIdx.x / x[0];',
}


@pytest.mark.parametrize("what", BAD)
def test_reports(what):
    """Each with the line; lines of the body are numbered from 3."""
    read_only = np.zeros(62, i32)                            # no multiple of 16 bytes
    read_only.flags.writeable = False
    body = BAD[what].replace("; ", ";\n")
    source = f'extern "C" __global__ void k(const int* x, int* y) {{\n\n{body} }}'
    grid = (2,) if "another block" in what else (1,)
    with pytest.raises(KernelError, match=what) as e:
        run(source, read_only, np.zeros(64, i32), block=(64,), grid=grid)
    lines = [int(part.partition(":")[2].split()[0]) for part in str(e.value).split("k.cu")[1:]]
    assert lines and all(3 <= line <= 3 + body.count("\n") for line in lines), e.value


def test_a_reader_of_an_earlier_block_is_remembered():
    """A block reads; the next one reads as well, and writes: nothing orders it against the first."""
    source = 'extern "C" __global__ void k(int* x, int* y) { y[blockIdx.x] = x[0]; if (x[1 + blockIdx.x]) x[0] = 5; }'
    for seed in range(4):
        x = np.zeros(3, i32)
        x[1 + last(seed, 2)] = 1
        with pytest.raises(KernelError, match="a write of what was read.*of another block"):
            run(source, x, nan(2, dtype=i32), grid=(2,), block=(1,), seed=seed)


COUNT = '''extern "C" __global__ void k(int* parts, unsigned* arrived, int* y) { int i = threadIdx.x, sum = 0; __shared__ bool is_last;
parts[blockIdx.x * 64 + i] = i << blockIdx.x;
%s
if (i == 0) is_last = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
__syncthreads(); if (!is_last) return;
%s
for (int z = 0; z < gridDim.x; z++) sum += parts[z * 64 + i];
y[i] = sum; if (i == 0) y[64] = blockIdx.x; }'''


def last(seed, blocks):
    """Which block of a launch runs last; all orders occur."""
    y, arrived = nan(65, dtype=i32), np.zeros(1, np.uint32)
    source = COUNT % ("__threadfence(); __syncthreads();", "__threadfence();")
    run(source, nan(64 * blocks, dtype=i32), arrived, y, grid=(blocks,), block=(64,), seed=seed)
    assert y[:64].tolist() == [i * (2**blocks - 1) for i in range(64)] and arrived[0] == 0, "it begins anew"
    return int(y[64])


def test_the_last_block_to_arrive_reads_what_the_others_wrote():
    assert {last(seed, 3) for seed in range(20)} == {0, 1, 2}
    one_fences = COUNT % ("__syncthreads(); if (i == 0) __threadfence();", "__threadfence();")
    run(one_fences, nan(192, dtype=i32), np.zeros(1, np.uint32), nan(65, dtype=i32), grid=(3,), block=(64,))


@pytest.mark.parametrize("before, after", [
    ("__syncthreads();", "__threadfence();"), ("__threadfence(); __syncthreads();", ""), ("__threadfence();", "__threadfence();"),
    ("if (i == 0) __threadfence(); __syncthreads();", "__threadfence();"), ("__threadfence_block(); __syncthreads();", "__threadfence();"),
    ("__threadfence(); __syncthreads();", "__threadfence_block();"), ("__threadfence(); __syncthreads();", "if (i) __threadfence();")])
def test_a_fence_or_barrier_that_an_atomic_needs(before, after):
    with pytest.raises(KernelError, match="race: a read of what was written .*of another block.*k.cu:7 and k.cu:2"):
        run(COUNT % (before, after), nan(192, dtype=i32), np.zeros(1, np.uint32), nan(65, dtype=i32), grid=(3,), block=(64,))


def test_atomics_reach_memory_that_is_theirs():
    source = 'extern "C" __global__ void k(unsigned* n, unsigned* y) { y[threadIdx.x] = atomicAdd(n + threadIdx.x / 8, 2); }'
    n, y = np.zeros(4, np.uint32), np.zeros(32, np.uint32)
    run(source, n, y)
    assert n.tolist() == [16] * 4 and sorted(y.tolist()) == sorted(list(range(0, 16, 2)) * 4)
    with pytest.raises(KernelError, match="out of bounds"):
        run(source, n[:3], y)


@pytest.mark.parametrize("grid, block, shared, what", [
    ((1,), (64,), 0, "64 threads a block, compiled for 32"), ((1, 70000), (32,), 0, "no GPU launches"),
    ((1,), (1, 1, 32), 65 << 10, "64 KB"), ((1,), (0,), 0, "no GPU launches"), ((1,), (1, 1, 65), 0, "no GPU launches")])
def test_launches_that_no_gpu_takes(grid, block, shared, what):
    source = 'extern "C" __global__ void __launch_bounds__(32) k(int* y) { y[threadIdx.x] = 1; }'
    with pytest.raises(KernelError, match=what):
        run(source, nan(64, dtype=i32), grid=grid, block=block, shared=shared, arch=75)


ASYNC = '''extern "C" __global__ void k(const float4* x, float4* y) { __shared__ float4 s[64]; int i = threadIdx.x;
copy16(s + i, x + i, true); copies_commit();
%s
y[i] = s[63 - i]; }'''


def test_asynchronous_copies():
    from kernel_sources import devkit
    x = RANDOM.standard_normal((64, 4)).astype(f32)
    for seed in range(3):
        y = nan(64, 4)
        assert run(devkit() + ASYNC % "copies_wait<0>(); __syncthreads();", x, y, block=(64,), seed=seed).copies == 64
        np.testing.assert_array_equal(y, x[::-1])
        for wrong, message in (("__syncthreads();", "under way"), ("copies_wait<1>(); __syncthreads();", "under way"),
                               ("copies_wait<0>();", "race|under way|never wrote")):
            with pytest.raises(KernelError, match=message):
                run(devkit() + ASYNC % wrong, x, nan(64, 4), block=(64,), seed=seed)


def test_a_copy_of_nothing_is_from_somewhere():
    """`from` is an address of memory, whether or not it is read."""
    from kernel_sources import devkit
    source = ASYNC.replace("x + i, true", "x + i + %s, i < 60") % ("%s", "copies_wait<0>(); __syncthreads();")
    for beyond in ("0", "(i < 60 ? 0 : -1000000)", "(i < 60 ? 0 : 1000000)"):
        x, y = RANDOM.standard_normal((64, 4)).astype(f32), nan(64, 4)
        if beyond == "0":
            run(devkit() + source % beyond, x, y, block=(64,))
            np.testing.assert_array_equal(y, np.concatenate([np.zeros((4, 4)), x[:60][::-1]]))
            continue
        with pytest.raises(KernelError, match="takes nothing, but from outside of all arrays.*k.cu:2"):
            run(devkit() + source % beyond, x, y, block=(64,))


def test_copies_that_nobody_waits_for_land_late_sometimes():
    """With races not looked for, as in a long run, a missing wait still gives wrong numbers."""
    from kernel_sources import devkit
    x, y = np.ones((64, 4), f32), nan(64, 4)
    run(devkit() + ASYNC % "__syncthreads();", x, y, block=(64,), races=False)
    assert np.isnan(y).any() and (y == 1).any()


def test_arguments_are_checked():
    source = 'extern "C" __global__ void k(int* y, int n, float f) { y[n] = f; }'
    y = np.zeros((4, 4), i32)
    for args in ([y, i32(1)], [y, 1, f32(2)], [y, f32(1), f32(2)], [y, np.int64(1), f32(2)], [y[:, 0], i32(1), f32(2)],
                 [y, i32(1), i32(2)]):
        with pytest.raises(TypeError, match="argument"):
            run(source, *args)


def test_an_unknown_instruction_is_an_error():
    ptx, _ = nvrtc.compile('extern "C" __global__ void k(int* y) { asm volatile("nanosleep.u32 5;"); y[0] = 1; }', 80, ptx=True)
    with pytest.raises(Unknown, match="nanosleep"):
        translate(ptx)


def test_a_source_that_does_not_compile():
    with pytest.raises(nvrtc.CompileError, match=r"k\.cu\(1\)"):
        run('extern "C" __global__ void k(int* y) { nonsense; }', np.zeros(1, i32))
