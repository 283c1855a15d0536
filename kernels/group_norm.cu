// Group norm of x (B,P,C), P positions: mean 0 and variance 1 over each group of C/G neighbouring channels, then scale, shift and an
// activation (Wu & He 2018, eq. 7).  A group's numbers lie in every row, so this takes two kernels: group_sums, where each block adds
// up some rows, and group_norm, which puts the sums together and writes the result.
//
// Sums are taken of the differences to the group's first number.  So a large mean does not swallow a small deviation, as it would in
// sums of squares, and the sums of blocks simply add.
//
// A thread owns 8 neighbouring channels, 16 bytes, and every so many rows; C is a multiple of 8.
const int THREADS = 256;

// Which 8 channels are mine (of `eighths`, stepping by `wide`), which row, and how many rows are taken side by side.
struct Place { int wide, side_by_side, column, row; };
DEV Place place(int eighths) {
  Place p;
  p.wide = min(eighths, THREADS);
  p.side_by_side = THREADS / p.wide;
  p.column = threadIdx.x % p.wide;
  p.row = threadIdx.x / p.wide;
  return p;
}

// sums (B,Z,G,2): of each group in each of Z stretches of rows, the sum of x - x0 and of (x - x0)^2, x0 the group's first number.
// Grid: Z, B.  Block: 256.  Shared: 2 C side_by_side floats.  Reads x once.
extern "C" __global__ void __launch_bounds__(THREADS)
group_sums(const __half* __restrict__ x, float* sums, int P, int C, int G) {
  extern __shared__ float shared[];
  const int Z = gridDim.x, z = blockIdx.x, b = blockIdx.y, size = C / G;
  const int from = (int)((long long)P * z / Z), to = (int)((long long)P * (z + 1) / Z);
  const Place p = place(C / 8);
  const int apart = p.side_by_side * (C / 8);                      // in shared memory, what a thread keeps: so that a warp's lie together
  x += (size_t)b * P * C;
  if (p.row < p.side_by_side)
    for (int column = p.column; column < C / 8; column += p.wide) {
      float first[8], sum[8], square[8];
#pragma unroll
      for (int e = 0; e < 8; e++) {
        first[e] = __half2float(x[(column * 8 + e) / size * size]);
        sum[e] = square[e] = 0.f;
      }
      for (int row = from + p.row; row < to; row += p.side_by_side) {
        float v[8];
        unpack8(v, *(const uint4*)(x + (size_t)row * C + column * 8));
#pragma unroll
        for (int e = 0; e < 8; e++) {
          float d = v[e] - first[e];
          sum[e] += d;
          square[e] += d * d;
        }
      }
#pragma unroll
      for (int e = 0; e < 8; e++) {
        shared[2 * e * apart + p.row * (C / 8) + column] = sum[e];
        shared[(2 * e + 1) * apart + p.row * (C / 8) + column] = square[e];
      }
    }
  __syncthreads();                                                 // every channel's sums are there, for whoever has its group
  for (int i = threadIdx.x; i < 2 * G; i += THREADS) {             // sum and square of a group, by two threads
    float total = 0.f;
    for (int r = 0; r < p.side_by_side; r++)
      for (int c = i / 2 * size; c < (i / 2 + 1) * size; c++) total += shared[(c % 8 * 2 + i % 2) * apart + r * (C / 8) + c / 8];
    sums[((size_t)b * Z + z) * 2 * G + i] = total;
  }
}

// y = act((x - mean) / sqrt(variance + eps) * weight + bias), from the sums of Z stretches.
// Grid: stretches of rows, B.  Block: 256.  Shared: 2 G floats, and as many again or 256.  Reads x once, writes y once; each block reads
// all the sums of its picture, so there should not be many more blocks than fill the GPU.
extern "C" __global__ void __launch_bounds__(THREADS)
group_norm(const __half* __restrict__ x, const float* sums, const __half* weight, const __half* bias, __half* __restrict__ y,
           int P, int C, int G, int Z, float eps, int act) {
  extern __shared__ float shared[];                                // mean and 1 / deviation of each group; then sums of stretches
  const int b = blockIdx.y, size = C / G;
  const int from = (int)((long long)P * blockIdx.x / gridDim.x), to = (int)((long long)P * (blockIdx.x + 1) / gridDim.x);
  const int wide = min(2 * G, THREADS), stretches = THREADS / wide, stretch = threadIdx.x / wide;
  float* parts = shared + 2 * G;
  x += (size_t)b * P * C;
  y += (size_t)b * P * C;
  if (stretch < stretches)
    for (int i = threadIdx.x % wide; i < 2 * G; i += wide) {       // a warp reads what lies together
      float total = 0.f;
      for (int z = stretch; z < Z; z += stretches) total += sums[((size_t)b * Z + z) * 2 * G + i];
      parts[stretch * 2 * G + i] = total;
    }
  __syncthreads();                                                 // the sums of all stretches are there
  for (int g = threadIdx.x; g < G; g += THREADS) {
    float sum = 0.f, square = 0.f;
    for (int i = 0; i < stretches; i++) {
      sum += parts[(i * G + g) * 2];
      square += parts[(i * G + g) * 2 + 1];
    }
    sum /= (float)P * size;
    square /= (float)P * size;
    shared[2 * g] = __half2float(x[g * size]) + sum;
    shared[2 * g + 1] = rsqrtf(fmaxf(square - sum * sum, 0.f) + eps);
  }
  __syncthreads();                                                 // all groups' means are there
  const Place p = place(C / 8);
  if (p.row < p.side_by_side)
    for (int column = p.column; column < C / 8; column += p.wide) {
      float scale[8], shift[8];
#pragma unroll
      for (int e = 0; e < 8; e++) {
        int c = column * 8 + e, g = c / size;
        scale[e] = shared[2 * g + 1] * __half2float(weight[c]);
        shift[e] = __half2float(bias[c]) - shared[2 * g] * scale[e];
      }
      for (int row = from + p.row; row < to; row += p.side_by_side) {
        float v[8];
        unpack8(v, *(const uint4*)(x + (size_t)row * C + column * 8));
#pragma unroll
        for (int e = 0; e < 8; e++) v[e] = activate(v[e] * scale[e] + shift[e], act);
        *(uint4*)(y + (size_t)row * C + column * 8) = pack8(v);
      }
    }
}
