// Convolution 3: the tiles' product on tensor cores.
//
// Changed: tiles are halves, 32 deep, copied 16 bytes at a time: eight neighbouring columns of `a` are eight channels of one pixel, since C
// is a multiple of 8 here, as O is.  Each of four warps has 32x32 outputs: 8 instructions for each 16 of the depth.
//
// Grid: positions / 64, O / 64.  Block: 128.   Arrays as in step 1.
extern "C" __global__ void conv2d(const __half* x, const __half* weight, const __half* bias, __half* y, int B, int H, int W, int C, int O) {
  __shared__ __align__(16) __half a[64 * 40], b[32 * 72];          // rows of 32 and 64, and 8 more so that ldmatrix meets no bank twice
  const int M = B * H * W, K = 9 * C, m0 = blockIdx.x * 64, n0 = blockIdx.y * 64;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, my_m = warp / 2 * 32, my_n = warp % 2 * 32;
  float sum[2][4][4] = {};
  for (int k0 = 0; k0 < K; k0 += 32) {
    for (int i = threadIdx.x; i < 64 * 4; i += 128) {
      const int m = m0 + i / 4, k = k0 + i % 4 * 8, tap = k / C, r = m / W % H + tap / 3 - 1, s = m % W + tap % 3 - 1;
      uint4 word = make_uint4(0, 0, 0, 0);
      if (m < M && k < K && r >= 0 && r < H && s >= 0 && s < W) word = *(const uint4*)(x + (((size_t)(m / W / H) * H + r) * W + s) * C + k % C);
      *(uint4*)(a + i / 4 * 40 + i % 4 * 8) = word;
    }
    for (int i = threadIdx.x; i < 32 * 8; i += 128) {
      const int k = k0 + i / 8, n = n0 + i % 8 * 8;
      uint4 word = make_uint4(0, 0, 0, 0);
      if (k < K && n < O) word = *(const uint4*)(weight + (size_t)k * O + n);
      *(uint4*)(b + i / 8 * 72 + i % 8 * 8) = word;
    }
    __syncthreads();                                               // both tiles are there for all
#pragma unroll
    for (int k = 0; k < 32; k += 16) {
      unsigned af[2][4], bf[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        load_matrices(af[i], a + (my_m + i * 16 + lane % 16) * 40 + k + lane / 16 * 8);
        load_matrices_transposed(bf[i], b + (k + lane % 16) * 72 + my_n + i * 16 + lane / 16 * 8);
      }
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) multiply_add(sum[i][j], af[i], bf[j / 2][j % 2 * 2], bf[j / 2][j % 2 * 2 + 1]);
    }
    __syncthreads();                                               // all are done with them: the next may overwrite them
  }
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int m = m0 + my_m + i * 16 + lane / 4 + h * 8, n = n0 + my_n + j * 8 + lane % 4 * 2;
        if (m < M && n < O)
          *(__half2*)(y + (size_t)m * O + n) =
              __floats2half2_rn(sum[i][j][2 * h] + __half2float(bias[n]), sum[i][j][2 * h + 1] + __half2float(bias[n + 1]));
      }
}
