// Mean 0 and variance 1 over each row of x (R,C), then scale and shift (Ba et al. 2016, eq. 4).  A warp has a row and keeps it in
// registers, so the variance is that of the differences to the mean, and x is read once.
//
// Grid: R / 8, rounded up.  Block: 256, a warp a row.  Reads x once, writes y once.
//   WORDS  of 16 bytes that a lane holds of a row: C is a multiple of 8, at most 256 WORDS
extern "C" __global__ void __launch_bounds__(256)
layer_norm(const __half* __restrict__ x, const __half* __restrict__ weight, const __half* __restrict__ bias, __half* __restrict__ y,
           int R, int C, float eps) {
  const int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= R) return;
  x += (size_t)row * C;
  y += (size_t)row * C;
  float v[WORDS][8], sum = 0.f, square = 0.f;
#pragma unroll
  for (int i = 0; i < WORDS; i++) {
    int c = (i * 32 + lane) * 8;
    unpack8(v[i], c < C ? *(const uint4*)(x + c) : make_uint4(0, 0, 0, 0));
#pragma unroll
    for (int e = 0; e < 8; e++) sum += v[i][e];
  }
  const float mean = warp_sum(sum) / C;
#pragma unroll
  for (int i = 0; i < WORDS; i++)
    if ((i * 32 + lane) * 8 < C)
#pragma unroll
      for (int e = 0; e < 8; e++) {
        v[i][e] -= mean;
        square += v[i][e] * v[i][e];
      }
  const float scale = rsqrtf(warp_sum(square) / C + eps);
#pragma unroll
  for (int i = 0; i < WORDS; i++) {
    int c = (i * 32 + lane) * 8;
    if (c >= C) continue;
    float w[8], b[8];
    unpack8(w, *(const uint4*)(weight + c));
    unpack8(b, *(const uint4*)(bias + c));
#pragma unroll
    for (int e = 0; e < 8; e++) v[i][e] = v[i][e] * scale * w[e] + b[e];
    *(uint4*)(y + c) = pack8(v[i]);
  }
}
