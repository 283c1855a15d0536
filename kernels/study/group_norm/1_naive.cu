// Group norm 1: a block for each group, three walks over it: for the mean, for the variance, for the result.
//
// Channels lie side by side, so a group is a narrow strip, C/G numbers of each row: threads read a few bytes here and a few there, and there
// are only B G blocks (64 for two pictures), however many multiprocessors the GPU has.
//
// Grid: G, B.  Block: 256.   x (B,P,C), weight and bias (C) -> y (B,P,C), with silu.   `sums` is not used here.
DEV float block_sum(float v, float* shared) {
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();                                                 // every warp's sum is there
  v = warp_sum(threadIdx.x % 32 < 8 ? shared[threadIdx.x % 32] : 0.f);
  __syncthreads();                                                 // all have read them: the next call may overwrite them
  return v;
}
extern "C" __global__ void __launch_bounds__(256)
group_norm(const __half* x, float* sums, const __half* weight, const __half* bias, __half* y, int P, int C, int G, int Z, float eps) {
  __shared__ float shared[8];
  const int size = C / G, g = blockIdx.x, n = P * size;
  x += (size_t)blockIdx.y * P * C + g * size;
  y += (size_t)blockIdx.y * P * C + g * size;
  auto at = [&](int i) { return (size_t)(i / size) * C + i % size; };
  float sum = 0.f;
  for (int i = threadIdx.x; i < n; i += 256) sum += __half2float(x[at(i)]);
  const float mean = block_sum(sum, shared) / n;
  sum = 0.f;
  for (int i = threadIdx.x; i < n; i += 256) {
    float d = __half2float(x[at(i)]) - mean;
    sum += d * d;
  }
  const float scale = rsqrtf(block_sum(sum, shared) / n + eps);
  for (int i = threadIdx.x; i < n; i += 256) {
    const int c = g * size + i % size;
    y[at(i)] = __float2half(activate((__half2float(x[at(i)]) - mean) * scale * __half2float(weight[c]) + __half2float(bias[c]), SILU));
  }
}
