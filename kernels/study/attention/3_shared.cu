// Attention 3: keys and values pass through shared memory (Dao et al. 2022).
//
// Changed: the block's 128 queries need the same keys, so 32 of them at a time are brought to shared memory once, 16 bytes a copy, and
// read there by all.  k and v are read from memory once for 128 queries, not once for each.
//
// Grid: N / 128, heads, B.  Block: 128.   Arrays as in step 1.
extern "C" __global__ void attention(const __half* q, const __half* k, const __half* v, __half* o, int N, int M, int heads, float scale) {
  __shared__ __align__(16) __half keys[32][HEAD], values[32][HEAD];
  const int n = blockIdx.x * 128 + threadIdx.x, head = blockIdx.y, b = blockIdx.z, C = heads * HEAD;
  q += ((size_t)b * N + min(n, N - 1)) * C + head * HEAD;          // threads beyond the last query help to copy
  k += (size_t)b * M * C + head * HEAD;
  v += (size_t)b * M * C + head * HEAD;
  float query[HEAD], most = -1e30f, total = 0.f, sum[HEAD] = {};
#pragma unroll
  for (int d = 0; d < HEAD; d++) query[d] = __half2float(q[d]) * scale;
  for (int first = 0; first < M; first += 32) {
    const int count = min(32, M - first);
    for (int i = threadIdx.x; i < count * HEAD / 8; i += 128) {
      int m = i / (HEAD / 8), d = i % (HEAD / 8) * 8;
      *(uint4*)&keys[m][d] = *(const uint4*)(k + (size_t)(first + m) * C + d);
      *(uint4*)&values[m][d] = *(const uint4*)(v + (size_t)(first + m) * C + d);
    }
    __syncthreads();                                               // the tile is there for all
    for (int m = 0; m < count; m++) {
      float s = 0.f;
#pragma unroll
      for (int d = 0; d < HEAD; d++) s += query[d] * __half2float(keys[m][d]);
      const float now = fmaxf(most, s), shrink = __expf(most - now), weight = __expf(s - now);
      most = now;
      total = total * shrink + weight;
#pragma unroll
      for (int d = 0; d < HEAD; d++) sum[d] = sum[d] * shrink + weight * __half2float(values[m][d]);
    }
    __syncthreads();                                               // all are done with it: the next may overwrite it
  }
  if (n >= N) return;
  o += ((size_t)b * N + n) * C + head * HEAD;
#pragma unroll
  for (int d = 0; d < HEAD; d++) o[d] = __float2half(sum[d] / total);
}
