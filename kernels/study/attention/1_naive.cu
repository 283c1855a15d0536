// Attention 1: softmax(q k^T / sqrt(d)) v, as it is written.
//
// A thread has a query.  It walks over the keys twice: for the largest score, so that exp cannot overflow, and for the sums.  Every
// thread reads all of k and v from memory, k twice, and computes each score twice.
//
// Grid: N / 128, heads, B.  Block: 128.   q (B,N,C), k and v (B,M,C) -> o (B,N,C), heads of HEAD columns side by side.
extern "C" __global__ void attention(const __half* q, const __half* k, const __half* v, __half* o, int N, int M, int heads, float scale) {
  const int n = blockIdx.x * 128 + threadIdx.x, head = blockIdx.y, b = blockIdx.z, C = heads * HEAD;
  if (n >= N) return;
  q += ((size_t)b * N + n) * C + head * HEAD;
  o += ((size_t)b * N + n) * C + head * HEAD;
  k += (size_t)b * M * C + head * HEAD;
  v += (size_t)b * M * C + head * HEAD;
  auto score = [&](int m) {
    float s = 0.f;
    for (int d = 0; d < HEAD; d++) s += __half2float(q[d]) * __half2float(k[(size_t)m * C + d]);
    return s * scale;
  };
  float most = -1e30f, total = 0.f, sum[HEAD] = {};
  for (int m = 0; m < M; m++) most = fmaxf(most, score(m));
  for (int m = 0; m < M; m++) {
    float weight = __expf(score(m) - most);
    total += weight;
#pragma unroll
    for (int d = 0; d < HEAD; d++) sum[d] += weight * __half2float(v[(size_t)m * C + d]);
  }
#pragma unroll
  for (int d = 0; d < HEAD; d++) o[d] = __float2half(sum[d] / total);
}
