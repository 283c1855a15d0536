// A linear layer: x (M,K), weight (O,K), or (K,O) if B_ROWS is 0 -> y (M,O), + bias (O) + add, as for conv2d.  1x1 convolutions too.
//
// GEGLU 1: weight has 2 O rows, and y (M,O) = h gelu(gate), where the first O rows give h and the others the gate (Shazeer 2020,
// eq. 6).  A tile then has 8 columns of h and the same 8 of the gate, in turn, so that one thread holds both and the (M,2O) are
// never in memory.
//
// Grid: M / BM and columns / BN, rounded up, and blocks that share the depth.  Block: THREADS.  Shared: STAGES (A_TILE + B_TILE) halves.
// Reads x once for each BN columns, the weights once for each BM rows; writes y once.
//   ALIGNED_C whether K is a multiple of 8
//   EACH      2 or 3: x is multiplied by as many weights of one shape, stored by rows, -> y (EACH,M,O), as queries, keys and values are made
extern "C" __global__ void __launch_bounds__(THREADS)
linear(const __half* __restrict__ x, const __half* __restrict__ weight, const __half* __restrict__ weight1,
       const __half* __restrict__ weight2, const __half* bias, const __half* add, __half* y, float4* parts, unsigned* arrived,
       int M, int K, int O, int every) {
  extern __shared__ __align__(16) __half shared[];
  int first, last;
  my_steps((K + BK - 1) / BK, first, last);
  int block_column = blockIdx.y;
  if (EACH > 1) {
    const int across = (O + BN - 1) / BN, which = block_column / across;
    block_column -= which * across;
    weight = which == 0 ? weight : which == 1 ? weight1 : weight2;
    y += (size_t)which * M * O;
  }

  // This thread copies 8 numbers of A_CHUNKS rows of x, and of as many of the weights: always the same rows, each step BK further on.
  const int row = threadIdx.x / (BK / 8), k_in_tile = threadIdx.x % (BK / 8) * 8, at = in_rows_of_BK(row, k_in_tile);
  const int m = blockIdx.x * BM + row, n = GEGLU ? block_column * (BN / 2) + row / 16 * 8 + row % 8 : block_column * BN + row;
  const __half* x_row = x + (size_t)(m < M ? m : 0) * K;
  const __half* weight_row = weight + (size_t)(n < O ? (GEGLU && row / 8 % 2 ? O + n : n) : 0) * K;
  auto copy8 = [&](__half* to, const __half* rows, int more, int k, bool ok) {         // from the row so many after the first
    ok = ok && k < K;
    const __half* from = rows + (ok ? more * K + k : 0);
    if (ALIGNED_C) copy16(to, from, ok);
    else
      for (int e = 0; e < 8; e++) to[e] = ok && k + e < K ? from[e] : __ushort_as_half(0);
  };
  auto load_a = [&](__half* to, int step) {
#pragma unroll
    for (int i = 0; i < A_CHUNKS; i++)
      copy8(to + at + i * EVERY * BK, x_row, i * EVERY, (first + step) * BK + k_in_tile, m + i * EVERY < M);
  };
  auto load_b = [&](__half* to, int step) {
    const int apart = GEGLU ? EVERY / 2 : EVERY;                   // rows of the weights, half of which lie below the other half
    if (!B_ROWS) load_columns(to, weight, (first + step) * BK, block_column * BN, K, O);
    else
#pragma unroll
      for (int i = 0; i < B_CHUNKS; i++)
        copy8(to + at + i * EVERY * BK, weight_row, i * apart, (first + step) * BK + k_in_tile, n + i * apart < O);
  };

  Sums sums;
  multiply_tiles(sums, shared, last - first, load_a, load_b);
  if (SHARES && !sum_of_parts(sums, shared, parts, arrived)) return;
  for_sums(block_column * BN, [&](int i, int j, int half, int m, int n) {
    if (GEGLU) {
      if (j % 2) return;                                           // the gate; its h, to the left, takes it along
      n = block_column * (BN / 2) + (n - block_column * BN) / 16 * 8 + n % 8;
    }
    float v[2] = {sums[i][j][2 * half], sums[i][j][2 * half + 1]};
    if (GEGLU)
      for (int e = 0; e < 2 && n + e < O; e++)
        v[e] = (v[e] + __half2float(bias[n + e])) * gelu(sums[i][j | 1][2 * half + e] + __half2float(bias[O + n + e]));
    store(y, GEGLU ? nullptr : bias, add, every, m, n, M, O, v[0], v[1]);
  });
}
