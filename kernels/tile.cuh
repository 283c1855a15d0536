// A tile of a matrix product, y (M,O) = a (M,K) b (K,O), on tensor cores: what convolutions and linear layers share.
//
// A block owns BM x BN numbers of y, a warp WM x WN of them, in registers as float32.  Tiles of a and b, BK deep, travel to
// shared memory ahead of their use, STAGES - 1 of them under way.  Who includes this says BM, BN, WM, WN, STAGES, and
//   B_ROWS   1: b is stored as (O,K), a row for each output, as linear layers have it;  0: as (K,O), as convolutions have it
//
// Where O is no multiple of 8, ALIGNED_O is 0, and rows of y, and of b if it is (K,O), are taken number by number.
const int BK = 32, THREADS = 32 * (BM / WM) * (BN / WN);
const int A_TILE = BM * BK, B_TILE = BN * BK;
const int A_CHUNKS = BM * BK / 8 / THREADS, B_CHUNKS = BN * BK / 8 / THREADS;        // of 8 halves, that a thread copies
const int EVERY = THREADS / (BK / 8);                              // how many rows of BK lie between two of them
typedef float Sums[WM / 16][WN / 8][4];

// Where a tile keeps its number at row `row`, column `k`, if its rows are BK long; and at row `k`, column `n`, if they are BN long.  The
// eights of a row change places, by the row: so the eight rows that ldmatrix reads at once lie in different banks, and so do the eight
// pieces that a quarter of a warp copies at once.
DEV int in_rows_of_BK(int row, int k) { return row * BK + (k / 8 ^ row / 2 % (BK / 8)) * 8; }        // k and n: multiples of 8
DEV int in_rows_of_BN(int k, int n) { return k * BN + (n / 8 ^ k % 8) * 8; }

// sums = the product over `steps` tiles.  load_a(to, step) and load_b(to, step) begin to copy a tile; they are called for
// steps 0, 1, 2, ... in this order.
template <class LoadA, class LoadB>
DEV void multiply_tiles(Sums& sums, __half* shared, int steps, LoadA load_a, LoadB load_b) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / (BN / WN) * WM, column = warp % (BN / WN) * WN;
  __half *a_tiles = shared, *b_tiles = shared + STAGES * A_TILE;
  // What this lane names for ldmatrix.  A multiple of 16 further along the row, its place has just those bits turned over.
  const int a_at = in_rows_of_BK(row + lane % 16, lane / 16 * 8);
  const int b_at = B_ROWS ? in_rows_of_BK(column + lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8) : in_rows_of_BN(lane % 16, column + lane / 16 * 8);
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int j = 0; j < WN / 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[i][j][e] = 0.f;
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) {
      load_a(a_tiles + s * A_TILE, s);
      load_b(b_tiles + s * B_TILE, s);
    }
    copies_commit();
  }
  for (int step = 0, stage = 0; step < steps; step++) {
    copies_wait<STAGES - 2>();
    __syncthreads();                                               // this tile has landed for all; and all are done with the
    const int next = step + STAGES - 1;                            // one before, which is overwritten now
    const int before = stage > 0 ? stage - 1 : STAGES - 1;
    if (next < steps) {
      load_a(a_tiles + before * A_TILE, next);
      load_b(b_tiles + before * B_TILE, next);
    }
    copies_commit();                                               // an empty group too, so that counting them is simple
    const __half *a = a_tiles + stage * A_TILE, *b = b_tiles + stage * B_TILE;
    stage = stage < STAGES - 1 ? stage + 1 : 0;
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
      unsigned af[WM / 16][4], bf[WN / 16][4];                     // fragments: a lane's share of 16x16 numbers
#pragma unroll
      for (int i = 0; i < WM / 16; i++) load_matrices(af[i], a + i * 16 * BK + (a_at ^ k));
#pragma unroll
      for (int j = 0; j < WN / 16; j++)
        if (B_ROWS) load_matrices(bf[j], b + j * 16 * BK + (b_at ^ k));
        else load_matrices_transposed(bf[j], b + k * BN + (b_at ^ j * 16));
#pragma unroll
      for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int j = 0; j < WN / 8; j++) multiply_add(sums[i][j], af[i], bf[j / 2][j % 2 * 2], bf[j / 2][j % 2 * 2 + 1]);
    }
  }
}

// Call each(i, j, h, m, n) for what this thread holds: sums[i][j][2 h] and the next are y[m][n] and y[m][n + 1].  n0: the block's first
template <class Each>
DEV void for_sums(int n0, Each each) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = blockIdx.x * BM + warp / (BN / WN) * WM + lane / 4, column = n0 + warp % (BN / WN) * WN + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int j = 0; j < WN / 8; j++) each(i, j, h, row + i * 16 + h * 8, column + j * 8);
}

// Copy this thread's chunks of a tile of b stored as (K,O): rows k0 .. k0 + BK, columns n0 .. n0 + BN.
DEV void load_columns(__half* to, const __half* b, int k0, int n0, int K, int O) {
  const int rows = THREADS / (BN / 8), n = n0 + threadIdx.x % (BN / 8) * 8;
  const int k_in_tile = threadIdx.x / (BN / 8), k = k0 + k_in_tile;
  const __half* from = b + (size_t)k * O + n;
  to += in_rows_of_BN(k_in_tile, n - n0);
#pragma unroll
  for (int i = 0; i < B_CHUNKS; i++) {
    __half* at = to + i * rows * BN;
    bool ok = k + i * rows < K && n < O;
    if (ALIGNED_O) copy16(at, ok ? from + i * rows * O : b, ok);
    else
      for (int e = 0; e < 8; e++) at[e] = k + i * rows < K && n + e < O ? from[i * rows * O + e] : __ushort_as_half(0);
  }
}

// y[m][n], y[m][n + 1] = v0, v1 + bias + add, those of them that are there.  add (rows of y / every, O): one row of it for each
// `every` rows of y; bias and add may be null.
DEV void store(__half* y, const __half* bias, const __half* add, int every, int m, int n, int M, int O, float v0, float v1) {
  if (m >= M || n >= O) return;
  y += (size_t)m * O + n;
  if (bias) bias += n;
  if (add) add += (size_t)(m / every) * O + n;
  if (ALIGNED_O) {
    float2 b = bias ? __half22float2(*(const __half2*)bias) : make_float2(0.f, 0.f);
    float2 a = add ? __half22float2(*(const __half2*)add) : make_float2(0.f, 0.f);
    *(__half2*)y = __floats2half2_rn(v0 + b.x + a.x, v1 + b.y + a.y);
  } else {
    for (int e = 0; e < 2 && n + e < O; e++)
      y[e] = __float2half((e ? v1 : v0) + (bias ? __half2float(bias[e]) : 0.f) + (add ? __half2float(add[e]) : 0.f));
  }
}

// Few large tiles would leave most of the GPU idle, so the depth K may be shared out among gridDim.z blocks: each adds up its part
// of the steps, [first, last).   SHARES: 1 where it is
DEV void my_steps(int all, int& first, int& last) {
  first = SHARES ? (int)((long long)all * blockIdx.z / gridDim.z) : 0;
  last = SHARES ? (int)((long long)all * (blockIdx.z + 1) / gridDim.z) : all;
}

// sums = those of all blocks that share this tile's depth, for the last of them to arrive here; the others get false, and are done.
// The order of the additions is that of the blocks, so that the result is the same whoever comes last.
//   shared    room for a number, where the tiles were
//   parts     room for the sums of each block: four of each thread lie beside four of the next
//   arrived   of each tile, how many blocks are here: 0 before the launch, and 0 again after it, since atomicInc begins anew
DEV bool sum_of_parts(Sums& sums, __half* shared, float4* parts, unsigned* arrived) {
  const int tile = blockIdx.y * gridDim.x + blockIdx.x, each = BM * BN / 4;            // float4s of a block
  const size_t apart = (size_t)gridDim.x * gridDim.y * each;       // of a tile's blocks
  float4* first = parts + (size_t)tile * each + threadIdx.x;
  float4* mine = first + blockIdx.z * apart;
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int j = 0; j < WN / 8; j++) {
      float* s = sums[i][j];
      mine[(i * (WN / 8) + j) * THREADS] = make_float4(s[0], s[1], s[2], s[3]);
      s[0] = s[1] = s[2] = s[3] = 0.f;
    }
  __threadfence();                                                 // who sees this block counted sees what it wrote
  __syncthreads();
  int* is_last = (int*)shared;
  if (threadIdx.x == 0) *is_last = atomicInc(arrived + tile, gridDim.z - 1) == gridDim.z - 1;
  __syncthreads();
  if (!*is_last) return false;
  __threadfence();
  static_assert(WM % 32 == 0, "rows are summed by two sixteens");
#pragma unroll
  for (int i0 = 0; i0 < WM / 16; i0 += 2) {                        // two sixteens of rows at a time, for which there are registers
    const float4* part = first;
#pragma unroll 1
    for (int z = 0; z < gridDim.z; z++, part += apart)
#pragma unroll
      for (int i = i0; i < i0 + 2; i++)
#pragma unroll
        for (int j = 0; j < WN / 8; j++) {
          const float4 v = part[(i * (WN / 8) + j) * THREADS];
          float* s = sums[i][j];
          s[0] += v.x, s[1] += v.y, s[2] += v.z, s[3] += v.w;
        }
  }
  return true;
}
