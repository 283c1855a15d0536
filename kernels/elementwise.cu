// What is left of a network call between the large kernels: passes over memory, a number or two a thread.

// y = act(x), n numbers.  Grid: n / 256, rounded up.  Block: 256.
extern "C" __global__ void __launch_bounds__(256) activation(const __half* x, __half* y, long long n, int act) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i < n) y[i] = __float2half(activate(__half2float(x[i]), act));
}

// y (R,C) = first half times gelu of the second half of each row of x (R,2C).  Grid: R C / 256, rounded up.  Block: 256.
extern "C" __global__ void __launch_bounds__(256) geglu(const __half* x, __half* y, long long n, int C) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x, at = i / C * 2 * C + i % C;
  if (i < n) y[i] = __float2half(__half2float(x[at]) * gelu(__half2float(x[at + C])));
}

// y (R,C1+C2): rows of x1 (R,C1) and x2 (R,C2) side by side, 8 channels a thread; C1 and C2 are multiples of 8.
// Grid: R (C1+C2) / 2048, rounded up.  Block: 256.
extern "C" __global__ void __launch_bounds__(256) concat(const uint4* x1, const uint4* x2, uint4* y, int R, int C1, int C2) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  const int n1 = C1 / 8, n2 = C2 / 8;
  const long long row = i / (n1 + n2);
  const int c = (int)(i % (n1 + n2));
  if (row < R) y[i] = c < n1 ? x1[row * n1 + c] : x2[row * n2 + c - n1];
}

// Sinusoids of the timesteps, t (B) -> y (B,2 half), float32; frequencies fall from 1 by e^rate each.  cosines: whether they come first.
// Grid: B.  Block: 256.
extern "C" __global__ void __launch_bounds__(256) timestep_features(const float* t, float* y, int half, float rate, int cosines) {
  for (int i = threadIdx.x; i < half; i += 256) {
    const float angle = t[blockIdx.x] * expf(i * rate);
    y[(blockIdx.x * 2 + (cosines ? 1 : 0)) * half + i] = sinf(angle);
    y[(blockIdx.x * 2 + (cosines ? 0 : 1)) * half + i] = cosf(angle);
  }
}
