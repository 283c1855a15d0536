// Group norm 2: whole rows, in stretches, by two kernels.
//
// Changed: a block takes a stretch of rows with all their channels, so threads read side by side, and there are as many blocks as one
// likes.  No block sees a whole group any more: the first kernel leaves each stretch's sums in memory, the second puts them together.
// Sums are taken of the differences to the group's first number, since sums of squares alone would lose a small deviation beside a
// large mean; so one walk gives mean and variance.
//
// The shipped kernel is step 3: 16 bytes a read, several rows side by side where there are few channels, groups' sums put together by warps.
//
// Grid: Z, B.  Block: 256.  Arrays as in step 1;  sums (B,Z,G,2).
extern "C" __global__ void __launch_bounds__(256) group_sums(const __half* x, float* sums, int P, int C, int G) {
  extern __shared__ float shared[];                                // two sums of each channel
  const int Z = gridDim.x, z = blockIdx.x, size = C / G, from = (int)((long long)P * z / Z), to = (int)((long long)P * (z + 1) / Z);
  x += (size_t)blockIdx.y * P * C;
  for (int c = threadIdx.x; c < C; c += 256) {
    const float first = __half2float(x[c / size * size]);
    float sum = 0.f, square = 0.f;
    for (int row = from; row < to; row++) {
      float d = __half2float(x[(size_t)row * C + c]) - first;
      sum += d;
      square += d * d;
    }
    shared[2 * c] = sum;
    shared[2 * c + 1] = square;
  }
  __syncthreads();                                                 // every channel's sums are there
  for (int i = threadIdx.x; i < 2 * G; i += 256) {
    float total = 0.f;
    for (int c = i / 2 * size; c < (i / 2 + 1) * size; c++) total += shared[2 * c + i % 2];
    sums[((size_t)blockIdx.y * Z + z) * 2 * G + i] = total;
  }
}
extern "C" __global__ void __launch_bounds__(256)
group_norm(const __half* x, float* sums, const __half* weight, const __half* bias, __half* y, int P, int C, int G, int Z, float eps) {
  const int size = C / G, from = (int)((long long)P * blockIdx.x / gridDim.x), to = (int)((long long)P * (blockIdx.x + 1) / gridDim.x);
  x += (size_t)blockIdx.y * P * C;
  y += (size_t)blockIdx.y * P * C;
  for (int c = threadIdx.x; c < C; c += 256) {
    float mean = 0.f, square = 0.f;
    for (int z = 0; z < Z; z++) {
      const float* s = sums + (((size_t)blockIdx.y * Z + z) * G + c / size) * 2;
      mean += s[0];
      square += s[1];
    }
    mean /= (float)P * size;
    const float scale = rsqrtf(fmaxf(square / ((float)P * size) - mean * mean, 0.f) + eps) * __half2float(weight[c]);
    mean += __half2float(x[c / size * size]);
    for (int row = from; row < to; row++)
      y[(size_t)row * C + c] = __float2half(activate((__half2float(x[(size_t)row * C + c]) - mean) * scale + __half2float(bias[c]), SILU));
  }
}
