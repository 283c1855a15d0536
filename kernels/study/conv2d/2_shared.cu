// Convolution 2: a matrix product in tiles (implicit GEMM).
//
// Changed: y (positions, O) is the product of a (positions, 9 C), whose row is what lies beneath the filter, and the weights (9 C, O).
// A block has 64x64 numbers of y and brings 16 columns of a and 16 rows of weights at a time to shared memory.  `a` is never made:
// each of its numbers is fetched from its place in the picture.  A thread has 4x4 outputs in registers, so that 8 reads from shared
// memory serve 16 products.
//
// Grid: positions / 64, O / 64.  Block: 256.   Arrays as in step 1.
extern "C" __global__ void conv2d(const __half* x, const __half* weight, const __half* bias, __half* y, int B, int H, int W, int C, int O) {
  __shared__ float a[16][64 + 1], b[16][64];                       // a row more in `a`, so that writing it meets no bank twice
  const int M = B * H * W, K = 9 * C, m0 = blockIdx.x * 64, n0 = blockIdx.y * 64;
  const int my_m = threadIdx.x / 16 * 4, my_n = threadIdx.x % 16 * 4;
  float sum[4][4] = {};
  for (int k0 = 0; k0 < K; k0 += 16) {
    for (int i = threadIdx.x; i < 64 * 16; i += 256) {
      const int m = m0 + i / 16, k = k0 + i % 16, tap = k / C;
      const int r = m / W % H + tap / 3 - 1, s = m % W + tap % 3 - 1;
      const bool ok = m < M && k < K && r >= 0 && r < H && s >= 0 && s < W;
      a[i % 16][i / 16] = ok ? __half2float(x[(((size_t)(m / W / H) * H + r) * W + s) * C + k % C]) : 0.f;
    }
    for (int i = threadIdx.x; i < 64 * 16; i += 256) {
      const int k = k0 + i / 64, n = n0 + i % 64;
      b[i / 64][i % 64] = k < K && n < O ? __half2float(weight[(size_t)k * O + n]) : 0.f;
    }
    __syncthreads();                                               // both tiles are there for all
#pragma unroll
    for (int k = 0; k < 16; k++)
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sum[i][j] += a[k][my_m + i] * b[k][my_n + j];
    __syncthreads();                                               // all are done with them: the next may overwrite them
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (m0 + my_m + i < M && n0 + my_n + j < O)
        y[(size_t)(m0 + my_m + i) * O + n0 + my_n + j] = __float2half(sum[i][j] + __half2float(bias[n0 + my_n + j]));
}
