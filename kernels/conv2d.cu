// 3x3 convolution as a matrix product whose left side is never made (implicit GEMM): row m of it is a position of the result,
// column k one of the 9 C numbers beneath the filter there, fetched from the picture when its tile is copied.
//
//   x (B,h,w,C), weight (3,3,C,O) -> y (B,OH,OW,O), + bias (O) + add, of which each `every` rows of y share one
//
// Grid: B OH OW / BM and O / BN, rounded up, and blocks that share the depth.  Block: THREADS.  Shared: STAGES (A_TILE + B_TILE) halves.
// Reads the weights once for each BM rows, the picture 9 times for each BN outputs (8 of them from L2); writes y once.
//   H, W      of the picture as convolved: h, w, or with up = 1 twice that (or one less), each pixel read twice or four times
//   ALIGNED_C whether C is a multiple of 8; otherwise the numbers are gathered one by one, as conv_in's 4 channels are
extern "C" __global__ void __launch_bounds__(THREADS)
conv2d(const __half* __restrict__ x, const __half* __restrict__ weight, const __half* bias, const __half* add, __half* y, float* parts,
       int B, int h, int w, int C, int O, int H, int W, int OH, int OW, int stride, int pad, int up, int every) {
  extern __shared__ __align__(16) __half shared[];
  const int M = B * OH * OW, K = 9 * C;
  int first, last;
  my_steps((K + BK - 1) / BK, first, last);

  // This thread copies 8 numbers of A_CHUNKS rows, always the same rows and the same place in the tile's depth.
  const int k_in_tile = threadIdx.x % (BK / 8) * 8;
  int picture[A_CHUNKS], top[A_CHUNKS], left[A_CHUNKS];            // where the filter lies for each row
#pragma unroll
  for (int i = 0; i < A_CHUNKS; i++) {
    int m = blockIdx.x * BM + (threadIdx.x + i * THREADS) / (BK / 8);
    picture[i] = m < M ? m / (OH * OW) * h : -1;
    top[i] = m / OW % OH * stride - pad;
    left[i] = m % OW * stride - pad;
  }
  auto element = [&](int i, int tap, int c) -> const __half* {     // null where the filter hangs over the edge
    int row = top[i] + tap / 3, column = left[i] + tap % 3;
    if (picture[i] < 0 || tap >= 9 || (unsigned)row >= (unsigned)H || (unsigned)column >= (unsigned)W) return nullptr;
    return x + ((size_t)(picture[i] + (row >> up)) * w + (column >> up)) * C + c;
  };
  int tap = (first * BK + k_in_tile) / C, c = (first * BK + k_in_tile) % C;            // of the next tile to be copied
  auto load_a = [&](__half* to, int step) {
#pragma unroll
    for (int i = 0; i < A_CHUNKS; i++) {
      __half* at = to + (threadIdx.x + i * THREADS) / (BK / 8) * A_ROW + k_in_tile;
      if (ALIGNED_C) {
        const __half* from = element(i, tap, c);
        copy16(at, from ? from : x, from != nullptr);
      } else {
        for (int e = 0; e < 8; e++) {
          int k = (first + step) * BK + k_in_tile + e;
          const __half* from = element(i, k / C, k % C);
          at[e] = from ? *from : __ushort_as_half(0);
        }
      }
    }
    for (c += BK; c >= C; c -= C) tap++;
  };
  auto load_b = [&](__half* to, int step) { load_columns(to, weight, (first + step) * BK, blockIdx.y * BN, K, O); };

  Sums sums;
  multiply_tiles(sums, shared, last - first, load_a, load_b);
  for_sums([&](int i, int j, int half, int m, int n) {
    float v0 = sums[i][j][2 * half], v1 = sums[i][j][2 * half + 1];
    if (parts) store_part(parts, m, n, M, O, v0, v1);
    else store(y, bias, add, every, m, n, M, O, v0, v1);
  });
}
