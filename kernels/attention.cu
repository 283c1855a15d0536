// softmax(q k^T / sqrt(d)) v in each head, in one pass over k and v: scores never reach memory (Dao 2023, FlashAttention-2,
// algorithm 1).  A warp holds 16 ROWS queries, their scores against KEYS keys, and their part of the result in registers; k and v
// travel to shared memory one tile ahead.  A score's registers are where the next product wants its left side, so the weights
// that softmax makes never leave them.
//
//   q (B,N,C), k and v (B,M,C) -> o (B,N,C), heads side by side: head h has columns h HEAD .. (h + 1) HEAD, read in place
//
// Grid: N / QUERIES, rounded up, heads * SLICES, B.  Block: 32 WARPS.  Shared: Q_TILE + 2 (K_TILE + V_TILE) halves.
// Reads q once, k and v once for each QUERIES queries; writes o once.
//   HEAD    width of a head, a multiple of 8;  SLICES  a head too wide for the registers (the VAE's 512) is split: each block
//           computes all scores and gives HEAD / SLICES columns of the result
//   ROWS, WARPS, KEYS   sixteens of queries a warp has, warps, keys in a tile (a multiple of 16)
const int DEPTH = (HEAD + 15) / 16 * 16, WIDTH = HEAD / SLICES;
const int QUERIES = 16 * ROWS * WARPS, THREADS = 32 * WARPS;
const int K_ROW = DEPTH + 8, V_ROW = (WIDTH / 8 | 1) * 8;          // odd numbers of 16 bytes: ldmatrix meets no bank twice
const int Q_TILE = QUERIES * K_ROW, K_TILE = KEYS * K_ROW, V_TILE = KEYS * V_ROW;
const bool Q_STAYS = HEAD <= 160;                                  // in registers; wider ones are read from shared memory each time
const int AT_ONCE = HEAD <= 40 && MULTIPROCESSOR_KB > 120 ? 3 : 1;     // blocks of a multiprocessor, for which registers should do
const float NONE = -1e30f;                                         // the score of what is not to be seen; -inf would make NaNs

// Begin to copy COUNT rows of a matrix (all,C), the first `columns` numbers of each, and zeros up to `padded` and beyond its end.
template <int ROW, int columns, int padded, int COUNT>
DEV void load_rows(__half* to, const __half* matrix, int from_row, int all, int C) {
  const __half* from = matrix + (size_t)from_row * C;
  const int times = (COUNT * padded / 8 + THREADS - 1) / THREADS, at_a_time = times > 8 ? 4 : times;
#pragma unroll at_a_time
  for (int i = 0; i < times; i++) {
    const int chunk = threadIdx.x + i * THREADS, row = chunk / (padded / 8), c = chunk % (padded / 8) * 8;
    if (COUNT * padded / 8 % THREADS && chunk >= COUNT * padded / 8) break;
    const bool ok = from_row + row < all && c < columns;
    copy16(to + row * ROW + c, ok ? from + row * C + c : matrix, ok);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, AT_ONCE)
attention(const __half* __restrict__ q, const __half* __restrict__ k, const __half* __restrict__ v, __half* __restrict__ o,
          int N, int M, int heads, float scale, int causal) {
  extern __shared__ __align__(16) __half shared[];
  __half *q_tile = shared, *k_tiles = q_tile + Q_TILE, *v_tiles = k_tiles + 2 * K_TILE;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int head = blockIdx.y / SLICES, slice = blockIdx.y % SLICES, C = heads * HEAD;
  const int first = blockIdx.x * QUERIES;
  q += (size_t)blockIdx.z * N * C + head * HEAD;
  k += (size_t)blockIdx.z * M * C + head * HEAD;
  v += (size_t)blockIdx.z * M * C + head * HEAD + slice * WIDTH;
  o += (size_t)blockIdx.z * N * C + head * HEAD + slice * WIDTH;

  auto load_keys = [&](int tile) {
    load_rows<K_ROW, HEAD, DEPTH, KEYS>(k_tiles + tile % 2 * K_TILE, k, tile * KEYS, M, C);
    load_rows<V_ROW, WIDTH, WIDTH, KEYS>(v_tiles + tile % 2 * V_TILE, v, tile * KEYS, M, C);
    copies_commit();
  };
  // Nobody in this block sees a key beyond `end`.
  const int end = causal ? min(M, first + QUERIES) : M, tiles = (end + KEYS - 1) / KEYS;
  load_rows<K_ROW, HEAD, DEPTH, QUERIES>(q_tile, q, first, N, C);
  load_keys(0);

  // qf, kf, vf, wf: fragments of queries, keys, values and weights, a lane's share of 16x16 numbers.
  unsigned qf[ROWS][Q_STAYS ? DEPTH / 16 : 1][4];
  float sums[ROWS][WIDTH / 8][4], most[ROWS][2], total[ROWS][2];   // [2]: rows lane / 4 and lane / 4 + 8 of the sixteen
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int h = 0; h < 2; h++) most[r][h] = NONE, total[r][h] = 0.f;
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[r][j][e] = 0.f;
  }
  auto query = [&](unsigned (&f)[4], int r, int d) {
    load_matrices(f, q_tile + ((warp * ROWS + r) * 16 + lane % 16) * K_ROW + d * 16 + lane / 16 * 8);
  };

  for (int tile = 0; tile < tiles; tile++) {
    copies_wait<0>();
    __syncthreads();                                               // this tile is there for all; the other half is done with,
    if (tile + 1 < tiles) load_keys(tile + 1);                     // and overwritten while we compute
    const __half *kt = k_tiles + tile % 2 * K_TILE, *vt = v_tiles + tile % 2 * V_TILE;
    if (Q_STAYS && tile == 0)
#pragma unroll
      for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int d = 0; d < DEPTH / 16; d++) query(qf[r][Q_STAYS ? d : 0], r, d);

    // ---- scores ----
    float s[ROWS][KEYS / 8][4];
#pragma unroll
    for (int d = 0; d < DEPTH / 16; d++) {
      if (!Q_STAYS)
#pragma unroll
        for (int r = 0; r < ROWS; r++) query(qf[r][0], r, d);
#pragma unroll
      for (int j = 0; j < KEYS / 16; j++) {
        unsigned kf[4];
        load_matrices(kf, kt + (j * 16 + lane / 16 * 8 + lane % 8) * K_ROW + d * 16 + lane / 8 % 2 * 8);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
          if (d == 0) multiply(s[r][2 * j], qf[r][0], kf[0], kf[1]), multiply(s[r][2 * j + 1], qf[r][0], kf[2], kf[3]);
          else multiply_add(s[r][2 * j], qf[r][Q_STAYS ? d : 0], kf[0], kf[1]), multiply_add(s[r][2 * j + 1], qf[r][Q_STAYS ? d : 0], kf[2], kf[3]);
        }
      }
    }

    // ---- softmax, of base 2 as the hardware has it: `scale` holds log2(e), and is applied together with the maximum ----
    const bool some_hidden = (tile + 1) * KEYS > M || (causal && (tile + 1) * KEYS > first);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float now[2] = {most[r][0], most[r][1]};
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if (some_hidden) {
            int key = tile * KEYS + j * 8 + lane % 4 * 2 + e % 2, mine = first + (warp * ROWS + r) * 16 + lane / 4 + e / 2 * 8;
            if (key >= M || (causal && key > mine)) s[r][j][e] = NONE;
          }
          now[e / 2] = fmaxf(now[e / 2], s[r][j][e]);
        }
#pragma unroll
      for (int h = 0; h < 2; h++) {                                // four lanes have a row between them
        now[h] = fmaxf(now[h], __shfl_xor_sync(0xffffffffu, now[h], 1));
        now[h] = fmaxf(now[h], __shfl_xor_sync(0xffffffffu, now[h], 2));
        const float shrink = exp2f((most[r][h] - now[h]) * scale); // what was summed under the former maximum
        most[r][h] = now[h];
        total[r][h] *= shrink;
#pragma unroll
        for (int j = 0; j < WIDTH / 8; j++) sums[r][j][2 * h] *= shrink, sums[r][j][2 * h + 1] *= shrink;
      }
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) total[r][e / 2] += s[r][j][e] = exp2f(s[r][j][e] * scale - most[r][e / 2] * scale);
    }

    // ---- weights times values ----
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
      unsigned wf[ROWS][4];
#pragma unroll
      for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int h = 0; h < 4; h++) wf[r][h] = pack(s[r][2 * i + h / 2][h % 2 * 2], s[r][2 * i + h / 2][h % 2 * 2 + 1]);
      const __half* row = vt + (i * 16 + lane % 16) * V_ROW;
#pragma unroll
      for (int j = 0; j < WIDTH / 8; j += 2) {
        unsigned vf[4];
        if (j + 1 < WIDTH / 8) load_matrices_transposed(vf, row + j * 8 + lane / 16 * 8);
        else load_2_matrices_transposed(vf[0], vf[1], row + j * 8);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
          multiply_add(sums[r][j], wf[r], vf[0], vf[1]);
          if (j + 1 < WIDTH / 8) multiply_add(sums[r][j + 1 < WIDTH / 8 ? j + 1 : j], wf[r], vf[2], vf[3]);
        }
      }
    }
  }

#pragma unroll
  for (int r = 0; r < ROWS; r++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float all = total[r][h] + __shfl_xor_sync(0xffffffffu, total[r][h], 1);
      all += __shfl_xor_sync(0xffffffffu, all, 2);
      const int row = first + (warp * ROWS + r) * 16 + lane / 4 + h * 8;
      if (row >= N) continue;
#pragma unroll
      for (int j = 0; j < WIDTH / 8; j++)
        *(__half2*)(o + (size_t)row * C + j * 8 + lane % 4 * 2) = __floats2half2_rn(sums[r][j][2 * h] / all, sums[r][j][2 * h + 1] / all);
    }
}
