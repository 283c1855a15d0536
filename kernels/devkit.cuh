// What every kernel uses: the tensor cores' instructions by name, and the only place that knows one architecture from another.
// The launch code pastes this file in front of a kernel's source, so that a compiler's cache sees its changes.
#include <cuda_fp16.h>

#define DEV static __device__ __forceinline__

// Kilobytes of shared memory that a multiprocessor has.   CUDA C++ Programming Guide, table of technical specifications
#if __CUDA_ARCH__ == 750
#define MULTIPROCESSOR_KB 64
#elif __CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200
#define MULTIPROCESSOR_KB 100
#else
#define MULTIPROCESSOR_KB 164
#endif

DEV unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

// Copy 16 bytes to shared memory, zeros unless `ok`; `from` must be readable either way.  They are there after copies_wait and
// a barrier.  sm_75 has no asynchronous copies: there it is a plain one.
DEV void copy16(void* to, const void* from, bool ok) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(ok ? 16 : 0) : "memory");
#else
  *(uint4*)to = ok ? *(const uint4*)from : make_uint4(0, 0, 0, 0);
#endif
}
// The copies issued since the last call become a group.
DEV void copies_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Wait until all but the last N groups of this thread have landed.
template <int N>
DEV void copies_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Four 8x8 matrices of halves: lane l names row l % 8 of matrix l / 8, and gets of each the two numbers at row l / 4,
// columns 2 (l % 4) and the next.
DEV void load_matrices(unsigned (&r)[4], const __half* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
// The same, of the matrices' transposes.
DEV void load_matrices_transposed(unsigned (&r)[4], const __half* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
// Two of them; lanes 0 to 15 name the rows.
DEV void load_2_matrices_transposed(unsigned& r0, unsigned& r1, const __half* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r0), "=r"(r1) : "r"(shared_address(row)) : "memory");
}

// d (16,8) += a (16,16) b (16,8), halves, summed in float32.  A lane holds of d rows l / 4 and l / 4 + 8, columns
// 2 (l % 4) and the next.  sm_75 multiplies eight deep at a time.
DEV void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

// d = a b, which spares setting d to zero.
DEV void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.f));
#else
  d[0] = d[1] = d[2] = d[3] = 0.f;
  multiply_add(d, a, b0, b1);
#endif
}

DEV unsigned pack(float low, float high) {
  __half2 h = __floats2half2_rn(low, high);
  return *(unsigned*)&h;
}

// Eight halves of a 16-byte word, as floats, and back.
DEV void unpack8(float (&v)[8], uint4 word) {
  const __half2* h = (const __half2*)&word;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float2 f = __half22float2(h[i]);
    v[2 * i] = f.x;
    v[2 * i + 1] = f.y;
  }
}
DEV uint4 pack8(const float (&v)[8]) { return make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7])); }

DEV float warp_sum(float v) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(0xffffffffu, v, lanes);
  return v;
}

// Activations: of float32, since half has too few digits for the way there.
DEV float sigmoid(float x) { return __fdividef(1.f, 1.f + __expf(-x)); }
DEV float gelu(float x) { return 0.5f * x * (1.f + erff(x * 0.70710678f)); }
enum { NO_ACT, SILU, GELU, QUICK_GELU };
DEV float activate(float x, int act) {
  if (act == SILU) return x * sigmoid(x);
  if (act == GELU) return gelu(x);
  return act == QUICK_GELU ? x * sigmoid(1.702f * x) : x;
}
