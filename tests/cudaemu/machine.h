// What C++ made from PTX by translate.py is built from: the registers' types, and the machine's services (machine.cpp).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <limits>
#include <type_traits>

typedef uint8_t u8;   typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
typedef int8_t s8;    typedef int16_t s16;  typedef int32_t s32;  typedef int64_t s64;
typedef float f32;    typedef double f64;

struct Thread {
  u32 tid[3], lane, warp, index;
  int state;                 // READY, AT_BARRIER, AT_COLLECTIVE, DONE
  int site;                  // where it waits: an instruction of the kernel
  int line;                  // the last line of the source that touched memory or waited
  void* stack;
};

extern "C" {
extern Thread* self;         // who runs now
extern u32 ctaid[3], ntid[3], nctaid[3];
extern u64 executed;         // instructions of PTX by single threads, where RAN is in front of each
char* shared_memory();

[[noreturn]] void fail(int line, const char* what, ...);
void touch(u64 address, int bytes, bool write, int site, int line);          // every access
void touch_fixed(u64 address, int bytes, bool write, int site, int line);    // by ld.global.nc: of what no thread of this launch writes
void barrier(int site, int line);
void fence();                                                                // of the device or wider
u32 atomic(int how, u64 address, u32 value, int site, int line);             // 0 add, 1 inc; -> what was there
void sync_warp(u32 mask, int site, int line);
u32 shuffle(int how, u32 mask, u32 value, u32 b, u32 c, int site, int line);
u32 vote(u32 mask, bool p, int site, int line);
void copy_async(u64 to, u64 from, int bytes, int taken, int site, int line);
void commit_async();
void wait_async(int groups, int line);
void load_matrix(u32* r, u64 row, int count, bool transposed, int site, int line);
void multiply_add(f32* d, const u32* a, const u32* b, int k, int site, int line);
}

// ---- registers: bits, read and written as what an instruction takes them for ------------------------------------------

template <class To, class From> static inline To rd(From from) {
  if constexpr (sizeof(To) > sizeof(From)) return (To)from;
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
template <class R, class V> static inline void wr(R& r, V v) {
  if constexpr (sizeof(R) == sizeof(V)) memcpy(&r, &v, sizeof r);
  else r = (R)v;
}

// ---- arithmetic ---------------------------------------------------------------------------------------------------------

static inline f32 half_to_float(u16 h) { return _cvtsh_ss(h); }
static inline u16 float_to_half(f32 f) { return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT); }
static inline f32 flushed(f32 x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0.f, x) : x; }        // .ftz
static inline f32 saturated(f32 x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }                   // .sat; NaN gives 0
static inline f32 rounded_rz(f64 x) { f32 r = (f32)x; return std::fabs((f64)r) > std::fabs(x) ? nextafterf(r, 0.f) : r; }
static inline f32 rounded_rm(f64 x) { f32 r = (f32)x; return (f64)r > x ? nextafterf(r, -INFINITY) : r; }
static inline f32 rounded_rp(f64 x) { f32 r = (f32)x; return (f64)r < x ? nextafterf(r, INFINITY) : r; }
static inline u32 funnel(u64 pair, u32 n, bool left) { return left ? (u32)(pair << n >> 32) : (u32)(pair >> n); }
static inline u32 bit_field(u32 a, u32 at, u32 n) {
  return n == 0 || at > 31 ? 0 : a >> at & (n > 31 ? ~0u : (1u << n) - 1);
}
template <class T> static inline T bit_insert(T a, T into, u32 at, u32 n) {
  const u32 all = 8 * sizeof(T);
  T mask = at >= all ? 0 : (n >= all ? ~(T)0 : ((T)1 << n) - 1) << at;
  return (into & ~mask) | (at >= all ? 0 : a << at & mask);
}
static inline u32 permuted(u32 a, u32 b, u32 how) {                                                     // prmt
  u64 bytes = (u64)b << 32 | a;
  u32 r = 0;
  for (int i = 0; i < 4; i++) {
    u32 n = how >> 4 * i & 15, byte = bytes >> 8 * (n & 7) & 255;
    r |= (n & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
  }
  return r;
}
static inline u32 logic(u32 a, u32 b, u32 c, u32 table) {                                               // lop3
  u32 r = 0;
  for (int i = 0; i < 8; i++)
    if (table >> i & 1) r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return r;
}
template <class To> static inline To to_integer(f64 x) {                                                // rounded before; saturates
  typedef std::numeric_limits<To> limits;
  if (x != x) return 0;
  return x <= (f64)limits::min() ? limits::min() : x >= (f64)limits::max() ? limits::max() : (To)x;
}
