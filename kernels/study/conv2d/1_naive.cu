// Convolution 1: 3x3, a zero around the picture, as it is written.
//
// A thread has one output: it reads the 9 C numbers beneath the filter and as many weights, all from memory.  Neighbouring threads have
// neighbouring channels of the same position, so they read the same pixels, and weights side by side.
//
// Grid: B H W O / 256.  Block: 256.   x (B,H,W,C), weight (3,3,C,O), bias (O) -> y (B,H,W,O).
extern "C" __global__ void conv2d(const __half* x, const __half* weight, const __half* bias, __half* y, int B, int H, int W, int C, int O) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i >= (long long)B * H * W * O) return;
  const int o = i % O, column = i / O % W, row = i / O / W % H, b = i / O / W / H;
  float sum = __half2float(bias[o]);
  for (int tap = 0; tap < 9; tap++) {
    const int r = row + tap / 3 - 1, s = column + tap % 3 - 1;
    if (r < 0 || r >= H || s < 0 || s >= W) continue;
    for (int c = 0; c < C; c++)
      sum += __half2float(x[(((size_t)b * H + r) * W + s) * C + c]) * __half2float(weight[((size_t)tap * C + c) * O + o]);
  }
  y[i] = __float2half(sum);
}
