// A linear layer of few rows, as the timestep's embedding is one: x (M,K), M <= ROWS, weight (O,K) -> y (M,O), + bias (O) + add (M,O).
// Each weight is used M times only, so there is nothing for tensor cores to do: what counts is to read the weights once, and all of
// the GPU at a time.
//
// A warp gives one column of y: its lanes read 8 neighbouring numbers of the column's weights in turn, and sum up in the end.
// Grid: O / 8, rounded up.  Block: 256.  K is a multiple of 8.
extern "C" __global__ void __launch_bounds__(256)
linear_few(const __half* __restrict__ x, const __half* __restrict__ weight, const __half* bias, const __half* add, __half* y,
           int M, int K, int O) {
  const int lane = threadIdx.x % 32, n = blockIdx.x * 8 + threadIdx.x / 32;
  if (n >= O) return;
  float sums[ROWS] = {};
  for (int k = lane * 8; k < K; k += 32 * 8) {
    float w[8], v[8];
    unpack8(w, *(const uint4*)(weight + (size_t)n * K + k));
#pragma unroll
    for (int m = 0; m < ROWS; m++) {
      if (m >= M) break;
      unpack8(v, *(const uint4*)(x + (size_t)m * K + k));
#pragma unroll
      for (int e = 0; e < 8; e++) sums[m] += w[e] * v[e];
    }
  }
#pragma unroll
  for (int m = 0; m < ROWS; m++) {
    const float sum = warp_sum(sums[m]);
    if (lane == 0 && m < M) {
      const size_t at = (size_t)m * O + n;
      y[at] = __float2half(sum + (bias ? __half2float(bias[n]) : 0.f) + (add ? __half2float(add[at]) : 0.f));
    }
  }
}
