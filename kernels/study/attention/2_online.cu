// Attention 2: one walk over the keys (Milakov & Gimelshein 2018).
//
// Changed: the largest score need not be known beforehand.  When a larger one comes, what was summed under the former one is scaled down
// by exp(former - new).  Each score is computed once, and k is read once.  The query stays in registers.
//
// Grid: N / 128, heads, B.  Block: 128.   Arrays as in step 1.
extern "C" __global__ void attention(const __half* q, const __half* k, const __half* v, __half* o, int N, int M, int heads, float scale) {
  const int n = blockIdx.x * 128 + threadIdx.x, head = blockIdx.y, b = blockIdx.z, C = heads * HEAD;
  if (n >= N) return;
  q += ((size_t)b * N + n) * C + head * HEAD;
  o += ((size_t)b * N + n) * C + head * HEAD;
  k += (size_t)b * M * C + head * HEAD;
  v += (size_t)b * M * C + head * HEAD;
  float query[HEAD], most = -1e30f, total = 0.f, sum[HEAD] = {};
#pragma unroll
  for (int d = 0; d < HEAD; d++) query[d] = __half2float(q[d]) * scale;
  for (int m = 0; m < M; m++) {
    float s = 0.f;
#pragma unroll
    for (int d = 0; d < HEAD; d++) s += query[d] * __half2float(k[(size_t)m * C + d]);
    const float now = fmaxf(most, s), shrink = __expf(most - now), weight = __expf(s - now);
    most = now;
    total = total * shrink + weight;
#pragma unroll
    for (int d = 0; d < HEAD; d++) sum[d] = sum[d] * shrink + weight * __half2float(v[(size_t)m * C + d]);
  }
#pragma unroll
  for (int d = 0; d < HEAD; d++) o[d] = __float2half(sum[d] / total);
}
