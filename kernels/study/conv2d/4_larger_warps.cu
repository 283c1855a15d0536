// Convolution 4: more outputs a warp, and no conflict in shared memory.
//
// Changed: each of four warps has 64x64 outputs.  Of the tiles it reads its 64 rows and its 64 columns, and multiplies all of one by all of
// the other: for four times the products twice the matrices are loaded, so shared memory, which bound step 3, has half to do.
// And the sixteens of bytes of a row change places by the row's number.  Rows that were 8 longer kept the reads of ldmatrix apart, but not
// the writes: a quarter of a warp writes eight sixteens at once, of two rows 80 bytes apart, which met in four banks.
//
// What binds it now are instructions: most of them work out addresses, the same for every step of the loop but for a number added.
//
// The shipped kernel is step 5: addresses are found once, tiles travel while earlier ones are computed, blocks share a product's depth
// where there are few of them, and what follows the convolution is added before the result is written.
//
// Grid: positions / 128, O / 128.  Block: 128.   Arrays as in step 1.
DEV int place_in_a(int row, int k) { return row * 32 + (k / 8 ^ row / 2 % 4) * 8; }          // two rows of 64 bytes lie in all banks once
DEV int place_in_b(int k, int n) { return k * 128 + (n / 8 ^ k % 8) * 8; }                   // a row of 256 bytes, twice

extern "C" __global__ void __launch_bounds__(128)
conv2d(const __half* x, const __half* weight, const __half* bias, __half* y, int B, int H, int W, int C, int O) {
  __shared__ __align__(16) __half a[128 * 32], b[32 * 128];
  const int M = B * H * W, K = 9 * C, m0 = blockIdx.x * 128, n0 = blockIdx.y * 128;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, my_m = warp / 2 * 64, my_n = warp % 2 * 64;
  float sum[4][8][4] = {};
  for (int k0 = 0; k0 < K; k0 += 32) {
    for (int i = threadIdx.x; i < 128 * 4; i += 128) {
      const int m = m0 + i / 4, k = k0 + i % 4 * 8, tap = k / C, r = m / W % H + tap / 3 - 1, s = m % W + tap % 3 - 1;
      uint4 word = make_uint4(0, 0, 0, 0);
      if (m < M && k < K && r >= 0 && r < H && s >= 0 && s < W) word = *(const uint4*)(x + (((size_t)(m / W / H) * H + r) * W + s) * C + k % C);
      *(uint4*)(a + place_in_a(i / 4, i % 4 * 8)) = word;
    }
    for (int i = threadIdx.x; i < 32 * 16; i += 128) {
      const int k = k0 + i / 16, n = n0 + i % 16 * 8;
      uint4 word = make_uint4(0, 0, 0, 0);
      if (k < K && n < O) word = *(const uint4*)(weight + (size_t)k * O + n);
      *(uint4*)(b + place_in_b(i / 16, i % 16 * 8)) = word;
    }
    __syncthreads();                                               // both tiles are there for all
#pragma unroll
    for (int k = 0; k < 32; k += 16) {
      unsigned af[4][4], bf[4][4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        load_matrices(af[i], a + place_in_a(my_m + i * 16 + lane % 16, k + lane / 16 * 8));
        load_matrices_transposed(bf[i], b + place_in_b(k + lane % 16, my_n + i * 16 + lane / 16 * 8));
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) multiply_add(sum[i][j], af[i], bf[j / 2][j % 2 * 2], bf[j / 2][j % 2 * 2 + 1]);
    }
    __syncthreads();                                               // all are done with them: the next may overwrite them
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int m = m0 + my_m + i * 16 + lane / 4 + h * 8, n = n0 + my_n + j * 8 + lane % 4 * 2;
        if (m < M && n < O)
          *(__half2*)(y + (size_t)m * O + n) =
              __floats2half2_rn(sum[i][j][2 * h] + __half2float(bias[n]), sum[i][j][2 * h + 1] + __half2float(bias[n + 1]));
      }
}
