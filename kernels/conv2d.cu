// 3x3 convolution as a matrix product whose left side is never made (implicit GEMM): row m of it is a position of the result,
// column k one of the 9 C numbers beneath the filter there, fetched from the picture when its tile is copied.
//
//   x (B,h,w,C), weight (3,3,C,O) -> y (B,OH,OW,O), + bias (O) + add, of which each `every` rows of y share one
//
// Grid: B OH OW / BM and O / BN, rounded up, and blocks that share the depth.  Block: THREADS.  Shared: STAGES (A_TILE + B_TILE) halves.
// Reads the weights once for each BM rows, the picture 9 times for each BN outputs (8 of them from L2); writes y once.
//   UP        1: each pixel of x stands for two by two of the picture that is convolved;  0: it is x
//   H, W      of the picture as convolved: h, w, or with UP twice that, or one less
//   ALIGNED_C whether C is a multiple of 8; otherwise the numbers are gathered one by one, as conv_in's 4 channels are
extern "C" __global__ void __launch_bounds__(THREADS)
conv2d(const __half* __restrict__ x, const __half* __restrict__ weight, const __half* bias, const __half* add, __half* y,
       float4* parts, unsigned* arrived, int B, int h, int w, int C, int O, int H, int W, int OH, int OW, int stride, int pad, int every) {
  extern __shared__ __align__(16) __half shared[];
  const int M = B * OH * OW, K = 9 * C;
  int first, last;
  my_steps((K + BK - 1) / BK, first, last);

  // This thread copies 8 numbers of A_CHUNKS rows, always the same rows and the same place in the tile's depth.  Pixels are counted
  // from `base`, the beginning of the line where the filter lies for the block's first row, so that 32 bits do.
  const int row = threadIdx.x / (BK / 8), k_in_tile = threadIdx.x % (BK / 8) * 8, m0 = blockIdx.x * BM;
  const int line = max(m0 / OW % OH * stride - pad, 0) >> UP;
  const __half* base = x + ((size_t)(m0 / (OH * OW)) * h + line) * w * C;
  int inside[A_CHUNKS], picture[A_CHUNKS], top[A_CHUNKS], left[A_CHUNKS], place[A_CHUNKS];
#pragma unroll
  for (int i = 0; i < A_CHUNKS; i++) {
    const int m = m0 + row + i * EVERY;
    top[i] = m / OW % OH * stride - pad;                           // where the filter lies in the picture as convolved
    left[i] = m % OW * stride - pad;
    inside[i] = 0;                                                 // a bit for each tap: whether there is a pixel beneath it
#pragma unroll
    for (int tap = 0; tap < 9; tap++)
      if (m < M && (unsigned)(top[i] + tap / 3) < (unsigned)H && (unsigned)(left[i] + tap % 3) < (unsigned)W) inside[i] |= 1 << tap;
    picture[i] = (m / (OH * OW) - m0 / (OH * OW)) * h - line;
    place[i] = (picture[i] + top[i]) * w + left[i];
  }
  auto element = [&](int i, int tap, int c, bool& ok) {            // number c of the pixel beneath a tap; if there is none, any number
    ok = inside[i] >> tap & 1;
    const int pixel = UP ? (picture[i] + (top[i] + tap / 3 >> 1)) * w + (left[i] + tap % 3 >> 1) : place[i] + tap / 3 * w + tap % 3;
    return base + (ok ? pixel * C + c : 0);
  };
  int tap = (first * BK + k_in_tile) / C, c = (first * BK + k_in_tile) % C;            // of the next tile to be copied
  auto load_a = [&](__half* to, int step) {
    to += in_rows_of_BK(row, k_in_tile);
#pragma unroll
    for (int i = 0; i < A_CHUNKS; i++) {
      __half* at = to + i * EVERY * BK;
      bool ok;
      if (ALIGNED_C) {
        const __half* from = element(i, tap, c, ok);
        copy16(at, from, ok);
      } else {
        for (int e = 0; e < 8; e++) {
          int k = (first + step) * BK + k_in_tile + e;
          const __half* from = element(i, k / C, k % C, ok);
          at[e] = ok ? *from : __ushort_as_half(0);
        }
      }
    }
    for (c += BK; c >= C; c -= C) tap++;
  };
  auto load_b = [&](__half* to, int step) { load_columns(to, weight, (first + step) * BK, blockIdx.y * BN, K, O); };

  Sums sums;
  multiply_tiles(sums, shared, last - first, load_a, load_b);
  if (SHARES && !sum_of_parts(sums, shared, parts, arrived)) return;
  for_sums(blockIdx.y * BN, [&](int i, int j, int half, int m, int n) {
    store(y, bias, add, every, m, n, M, O, sums[i][j][2 * half], sums[i][j][2 * half + 1]);
  });
}
