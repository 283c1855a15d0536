// Attention 4: both products on tensor cores (Dao 2023, FlashAttention-2).
//
// Changed: a warp has 16 queries and multiplies 16x16 by 16x8 numbers in one instruction.  The scores come out spread over the lanes just
// as the second product wants its left side, so after exp they are packed to halves and used where they are.  A row's maximum and
// sum are spread over four lanes, which shuffles bring together.
//
// The shipped kernel is step 5: the next tile travels while this one is computed, two sixteens of queries share what a warp reads of k
// and v, and any width, causal masks and very wide heads are served.
//
// Grid: N / 64, heads, B.  Block: 128, four warps.   Arrays as in step 1; HEAD is a multiple of 16 here.
extern "C" __global__ void attention(const __half* q, const __half* k, const __half* v, __half* o, int N, int M, int heads, float scale) {
  const int ROW = HEAD + 8;                                        // so that ldmatrix meets no bank twice
  __shared__ __align__(16) __half queries[64 * ROW], keys[32 * ROW], values[32 * ROW];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, b = blockIdx.z, C = heads * HEAD;
  auto bring = [&](__half* to, const __half* from, int rows, int first, int all) {
    for (int i = threadIdx.x; i < rows * HEAD / 8; i += 128) {
      int r = i / (HEAD / 8), d = i % (HEAD / 8) * 8;
      uint4 word = make_uint4(0, 0, 0, 0);
      if (first + r < all) word = *(const uint4*)(from + ((size_t)b * all + first + r) * C + head * HEAD + d);
      *(uint4*)(to + r * ROW + d) = word;
    }
  };
  bring(queries, q, 64, blockIdx.x * 64, N);
  float most[2] = {-1e30f, -1e30f}, total[2] = {}, sum[HEAD / 8][4] = {};          // [2]: rows lane / 4 and lane / 4 + 8
  for (int first = 0; first < M; first += 32) {
    bring(keys, k, 32, first, M);
    bring(values, v, 32, first, M);
    __syncthreads();                                               // the tile, and at first the queries, are there for all
    float s[4][4] = {};
#pragma unroll
    for (int d = 0; d < HEAD; d += 16) {
      unsigned qf[4], kf[4];
      load_matrices(qf, queries + (warp * 16 + lane % 16) * ROW + d + lane / 16 * 8);
#pragma unroll
      for (int j = 0; j < 2; j++) {
        load_matrices(kf, keys + (j * 16 + lane / 16 * 8 + lane % 8) * ROW + d + lane / 8 % 2 * 8);
        multiply_add(s[2 * j], qf, kf[0], kf[1]);
        multiply_add(s[2 * j + 1], qf, kf[2], kf[3]);
      }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float now = most[h];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        float& x = s[i / 2][2 * h + i % 2];
        x = first + i / 2 * 8 + lane % 4 * 2 + i % 2 < M ? x * scale : -1e30f;
        now = fmaxf(now, x);
      }
      now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1));
      now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
      const float shrink = __expf(most[h] - now);
      most[h] = now;
      total[h] *= shrink;
#pragma unroll
      for (int j = 0; j < HEAD / 8; j++) sum[j][2 * h] *= shrink, sum[j][2 * h + 1] *= shrink;
#pragma unroll
      for (int i = 0; i < 8; i++) total[h] += s[i / 2][2 * h + i % 2] = __expf(s[i / 2][2 * h + i % 2] - now);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      unsigned vf[4], wf[4] = {pack(s[2 * i][0], s[2 * i][1]), pack(s[2 * i][2], s[2 * i][3]), pack(s[2 * i + 1][0], s[2 * i + 1][1]),
                               pack(s[2 * i + 1][2], s[2 * i + 1][3])};
#pragma unroll
      for (int j = 0; j < HEAD / 8; j += 2) {
        load_matrices_transposed(vf, values + (i * 16 + lane % 16) * ROW + j * 8 + lane / 16 * 8);
        multiply_add(sum[j], wf, vf[0], vf[1]);
        multiply_add(sum[j + 1], wf, vf[2], vf[3]);
      }
    }
    __syncthreads();                                               // all are done with the tile: the next may overwrite it
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    total[h] += __shfl_xor_sync(0xffffffffu, total[h], 1);
    total[h] += __shfl_xor_sync(0xffffffffu, total[h], 2);
    const int n = blockIdx.x * 64 + warp * 16 + lane / 4 + h * 8;
    if (n >= N) continue;
#pragma unroll
    for (int j = 0; j < HEAD / 8; j++)
      *(__half2*)(o + ((size_t)b * N + n) * C + head * HEAD + j * 8 + lane % 4 * 2) =
          __floats2half2_rn(sum[j][2 * h] / total[h], sum[j][2 * h + 1] / total[h]);
  }
}
