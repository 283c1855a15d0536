// A GPU that runs one block at a time and looks at everything: threads are fibres, which change places only at barriers and
// warp-wide instructions.  A warp runs as far as it can before the next one starts, in a random order, because warps that take
// turns would hide a missing barrier.  An asynchronous copy lands at once or at its wait, at random.
#include "machine.h"

#include <algorithm>
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <sys/mman.h>
#include <vector>

struct Buffer { char* start; u64 bytes; int writable; u8* written; };   // written: of each GRAIN bytes, whether; null: all of them are
struct Count { u64 requests, lanes, sectors, wavefronts, least; };       // of an instruction, see count_access
struct Launch {                                    // machine.py has the same
  u32 grid[3], block[3];
  u64 args[32];
  u64 shared_bytes;                                // all of it; `spans` says which parts of it belong to an array
  Buffer* buffers;
  int buffer_count, span_count;
  u32 spans[2 * 32];                               // (offset, bytes) within shared memory
  u64 seed;
  int races;                                       // whether to look for them too
  Count* counts;                                   // two for each instruction, of global and of shared memory; null: not counted
  int sites;                                       // how many instructions the kernel has
  u32* blocks;                                     // which of them run, three numbers each; null: all
  int block_count;
  int error_line, other_line;
  u64 products, conflicts, copies, barriers, executed;       // mma, rows of ldmatrix that meet in a bank, cp.async, barriers passed
  char error[1024];
};

enum { READY, AT_BARRIER, AT_COLLECTIVE, DONE };
const int MOST = 1024;                             // threads of a block
const size_t STACK = 1 << 18;
const int GRAIN = 2;                               // bytes that a cell of the shadow memory stands for

Thread* self;
u32 ctaid[3], ntid[3], nctaid[3];
u64 executed;
static Thread threads[MOST];
static int count, alive;
static Launch* launch;
static void (*kernel)(const u64*);
static char *stacks, *shared_base;
static void* scheduler;
static jmp_buf abandoned;
static u64 state;
static u32 epoch, block_epoch, warp_epoch[MOST / 32];                // one more at each barrier; at each barrier of the warp

static u64 random_number() {                                        // xorshift64
  state ^= state << 13; state ^= state >> 7; state ^= state << 17;
  return state;
}

// ---- fibres ---------------------------------------------------------------------------------------------------------------

extern "C" void change_stack(void** save, void* to);
asm(".globl change_stack\n.hidden change_stack\nchange_stack:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

static void rest() { change_stack(&self->stack, scheduler); }

static void life() {
  kernel(launch->args);
  wait_async(0, self->line);
  self->state = DONE;
  alive--;
  rest();
  abort();                                                          // nobody wakes it again
}

extern "C" void fail(int line, const char* what, ...) {
  va_list more;
  va_start(more, what);
  int n = vsnprintf(launch->error, sizeof launch->error, what, more);
  va_end(more);
  if (self && n < (int)sizeof launch->error)
    snprintf(launch->error + n, sizeof launch->error - n, " [block %u,%u,%u thread %u,%u,%u]", ctaid[0], ctaid[1], ctaid[2],
             self->tid[0], self->tid[1], self->tid[2]);
  launch->error_line = line;
  longjmp(abandoned, 1);
}

// ---- memory: bounds, alignment, what was never written, races -------------------------------------------------------------

struct Access { u32 epoch, warp_epoch; int thread, line; };          // epoch 0: never
struct Cell { Access write, read, read2, earlier; bool landing, fixed; };      // earlier: a read by another block, before those
struct Region { char* start; u64 bytes; bool is_shared, writable; u8* written; std::vector<Cell> cells; };
static std::vector<Region> regions;

// What one block may know of another: the threads of the first write, pass a barrier, and one of them counts itself by an atomic, with a
// fence between its writes and that; a thread of the second counts itself at the same place, and reads after a fence.  [PTX] memory
// consistency model, causality order.  More cautious than that: if one write of a block is not ordered so, none of its writes is.
struct Release { u64 at; u32 from, to; };                            // epochs of a block, of which an atomic at this place tells
static std::vector<Release> releases, acquired;                      // of the launch; by this block
static u32 acquired_epoch;                                           // of the atomic by which; 0: none
static int acquired_by;
static u32 last_write[MOST], last_fence[MOST];                       // epochs of threads of this block, of global memory; 0: never
static bool unfenced[MOST], sees[MOST];                              // wrote after its last fence; may read what is acquired

static bool seen(u32 of) {
  if (sees[self->index])
    for (const Release& r : acquired)
      if (r.from <= of && of < r.to) return true;
  return false;
}

static bool unordered(const Access& a, bool is_shared) {
  if (a.epoch == 0) return false;
  if (a.epoch < block_epoch) return !is_shared && !seen(a.epoch);    // another block, at any time
  if (a.epoch != epoch || a.thread == (int)self->index) return false;
  return threads[a.thread].warp != self->warp || a.warp_epoch == warp_epoch[self->warp];
}

static void race(const char* what, const Access& a, const Region& r, u64 at, int line) {
  launch->other_line = a.line;
  fail(line, "race: %s at byte %llu of %s, and nothing orders it against thread %d%s", what, (unsigned long long)at,
       r.is_shared ? "shared memory" : "a buffer", a.thread, a.epoch < block_epoch ? " of another block" : "");
}

enum Kind { PLAIN, ISSUED, LANDED, FIXED, ATOMIC };                  // two of an asynchronous copy; a read of ld.global.nc

static void look(u64 address, int bytes, bool write, int line, Kind kind) {
  self->line = line;
  if (bytes > 1 && address % bytes) fail(line, "%s of %d bytes at an address that is no multiple of it", write ? "write" : "read", bytes);
  char* p = (char*)address;
  if (p >= stacks && p < stacks + MOST * STACK) return;              // a local array
  for (Region& r : regions) {
    if (p < r.start || p >= r.start + r.bytes) continue;
    u64 at = p - r.start;
    const char* where = r.is_shared ? "shared memory" : "a buffer";
    if (at + bytes > r.bytes) fail(line, "%s of %d bytes runs over the end of %s of %llu", write ? "write" : "read", bytes, where, (unsigned long long)r.bytes);
    if (write && !r.writable) fail(line, "write to a buffer that is read-only");
    if (r.written)
      for (u64 c = at / GRAIN; c <= (at + bytes - 1) / GRAIN; c++) {
        if (write) r.written[c] = 1;
        else if (!r.written[c]) fail(line, "read of byte %llu of a buffer, which nobody ever wrote", (unsigned long long)at);
      }
    if (!launch->races || kind == ATOMIC) return;
    if (write && !r.is_shared) {
      last_write[self->index] = epoch;
      unfenced[self->index] = true;
    }
    Access now = {epoch, warp_epoch[self->warp], (int)self->index, line};
    for (u64 c = at / GRAIN; c <= (at + bytes - 1) / GRAIN; c++) {
      Cell& cell = r.cells[c];
      if (cell.landing && kind != LANDED) {
        launch->other_line = cell.write.line;
        fail(line, "%s of shared memory while a cp.async to it is under way", write ? "write" : "read");
      }
      if (unordered(cell.write, r.is_shared)) race(write ? "two writes" : "a read of what was written", cell.write, r, at, line);
      if (kind == FIXED && cell.write.epoch || write && cell.fixed) {
        launch->other_line = cell.write.epoch ? cell.write.line : cell.read.line;
        fail(line, "ld.global.nc of memory that this launch writes");
      }
      if (write) {
        if (!r.is_shared && cell.earlier.epoch && cell.earlier.epoch < block_epoch) race("a write of what was read", cell.earlier, r, at, line);
        if (unordered(cell.read, r.is_shared)) race("a write of what was read", cell.read, r, at, line);
        if (unordered(cell.read2, r.is_shared)) race("a write of what was read", cell.read2, r, at, line);
        cell.write = now;
        cell.landing = kind == ISSUED;
      } else {
        if (r.is_shared && cell.write.epoch < block_epoch) fail(line, "read of shared memory that this block never wrote");
        if (cell.read.epoch && cell.read.epoch < block_epoch) cell.earlier = cell.read;
        cell.fixed |= kind == FIXED;
        if (cell.read.epoch != epoch || cell.read.thread == now.thread) cell.read = now;
        else cell.read2 = now;
      }
    }
    return;
  }
  u64 best = ~0ull, n = 0;
  s64 off = 0;
  for (Region& r : regions) {
    s64 d = p - r.start;
    u64 far = d < 0 ? -d : d - r.bytes;
    if (far < best) { best = far; off = d; n = r.bytes; }
  }
  fail(line, "%s of %d bytes out of bounds: at byte %lld of an array of %llu", write ? "write" : "read", bytes, (long long)off, (unsigned long long)n);
}

// ---- what memory is asked for: the lanes of a warp that run an instruction for the same time make one request ---------------

const int BANKS = 32, WORD = 4, SECTOR = 32;                          // of shared memory; what global memory is moved in, bytes
struct Request { u32 lanes; u64 at[32]; };
struct Pending { u64 done; int bytes; std::deque<Request> open; };    // of a warp and an instruction
static std::vector<Pending> pending;
static std::vector<u64> visits;                                       // of a thread and an instruction

static bool in_shared(u64 address) { return (char*)address >= shared_base && (char*)address < shared_base + (256 << 10); }

// Passes over shared memory, one a cycle: lanes are served 128 bytes' worth at a time, all that ask for other words of one bank in turn.
static void count_wavefronts(Count& c, const u64* at, u32 lanes, int bytes) {
  const int together = bytes <= WORD ? 32 : 32 * WORD / bytes;
  for (int first = 0; first < 32; first += together) {
    u64 words[BANKS][32];
    int n[BANKS] = {}, most = 0;
    for (int i = first; i < first + together; i++)
      for (u64 w = at[i] / WORD; lanes >> i & 1 && w <= (at[i] + bytes - 1) / WORD; w++) {
        int bank = w % BANKS, k = 0;
        while (k < n[bank] && words[bank][k] != w) k++;
        if (k == n[bank]) words[bank][n[bank]++] = w;
        if (n[bank] > most) most = n[bank];
      }
    c.wavefronts += most;
    c.least += most > 0;
  }
}

static void finish_request(Request& r, int bytes, int site) {
  int first = __builtin_ctz(r.lanes);
  bool is_shared = in_shared(r.at[first]);
  Count& c = launch->counts[2 * site + is_shared];
  c.requests++;
  c.lanes += __builtin_popcount(r.lanes);
  if (is_shared) return count_wavefronts(c, r.at, r.lanes, bytes);
  for (int i = 0; i < 32; i++) {
    bool is_new = r.lanes >> i & 1;
    for (int j = 0; j < i && is_new; j++) is_new = !(r.lanes >> j & 1 && r.at[j] / SECTOR == r.at[i] / SECTOR);
    c.sectors += is_new;
  }
}

static void count_access(u64 address, int bytes, int site) {
  char* p = (char*)address;
  if (!launch->counts || p >= stacks && p < stacks + MOST * STACK) return;
  site = 2 * site + in_shared(address);                               // an asynchronous copy makes a request of either kind
  Pending& all = pending[self->warp * 2 * launch->sites + site];
  u64 k = visits[self->index * 2 * launch->sites + site]++ - all.done;
  while (all.open.size() <= k) all.open.push_back({});
  all.bytes = bytes;
  all.open[k].lanes |= 1u << self->lane;
  all.open[k].at[self->lane] = address;
  for (; !all.open.empty() && all.open.front().lanes == ~0u; all.open.pop_front(), all.done++) finish_request(all.open.front(), bytes, site / 2);
}

static void finish_requests() {                                       // of a block that has ended: those that not all lanes made
  for (size_t i = 0; i < pending.size(); i++) {
    for (Request& r : pending[i].open)
      if (r.lanes) finish_request(r, pending[i].bytes, i % (2 * launch->sites) / 2);
    pending[i] = {};
  }
  std::fill(visits.begin(), visits.end(), 0);
}

extern "C" void touch(u64 address, int bytes, bool write, int site, int line) {
  look(address, bytes, write, line, PLAIN);
  count_access(address, bytes, site);
}
extern "C" void touch_fixed(u64 address, int bytes, bool write, int site, int line) {
  look(address, bytes, write, line, FIXED);
  count_access(address, bytes, site);
}
char* shared_memory() { return shared_base; }

// ---- barriers and what a warp does together ---------------------------------------------------------------------------------

extern "C" void barrier(int site, int line) {
  self->state = AT_BARRIER;
  self->site = site;
  self->line = line;
  rest();
}

extern "C" void fence() {
  last_fence[self->index] = epoch;
  unfenced[self->index] = false;
  if (acquired_epoch && (acquired_by == (int)self->index || epoch > acquired_epoch)) sees[self->index] = true;
}

extern "C" u32 atomic(int how, u64 address, u32 value, int site, int line) {
  look(address, 4, false, line, ATOMIC);
  look(address, 4, true, line, ATOMIC);
  count_access(address, 4, site);
  bool ordered = true;
  for (int i = 0; i < count; i++)
    ordered &= last_write[i] < epoch && (!unfenced[i] || last_fence[self->index] > last_write[i]);
  for (const Release& r : releases)
    if (r.at == address) {
      acquired.push_back(r);
      acquired_epoch = epoch;
      acquired_by = self->index;
    }
  if (ordered) releases.push_back({address, block_epoch, epoch});
  u32 *at = (u32*)address, before = *at;
  *at = how == 0 ? before + value : before >= value ? 0 : before + 1;
  return before;
}

struct Meeting { int site; u32 mask, here; void* brought[32]; };
static Meeting meetings[MOST / 32][32];

// Wait for all lanes of the mask; the last one to come does the work for all.
template <class Work> static void together(u32 mask, int site, int line, void* brought, Work work) {
  self->line = line;
  if (!(mask >> self->lane & 1)) fail(line, "lane %u is not in the mask %08x that it gives", self->lane, mask);
  Meeting *mine = nullptr, *empty = nullptr;
  for (Meeting& m : meetings[self->warp]) {
    if (!m.here) empty = &m;
    else if (m.site == site && m.mask == mask) mine = &m;
  }
  if (!mine) { mine = empty; mine->site = site; mine->mask = mask; }
  mine->here |= 1u << self->lane;
  mine->brought[self->lane] = brought;
  if (mine->here != mask) {
    self->state = AT_COLLECTIVE;
    rest();
    return;
  }
  mine->here = 0;
  Meeting m = *mine;
  work(m.brought);
  for (int i = 0; i < 32; i++)
    if (mask >> i & 1) threads[self->warp * 32 + i].state = READY;
}

extern "C" void sync_warp(u32 mask, int site, int line) {
  together(mask, site, line, nullptr, [](void**) { warp_epoch[self->warp]++; });
}

struct Shuffled { u32 in, out, b, c; };
extern "C" u32 shuffle(int how, u32 mask, u32 value, u32 b, u32 c, int site, int line) {         // 0 xor, 1 down, 2 up, 3 lane
  Shuffled mine = {value, value, b, c};
  together(mask, site, line, &mine, [=](void** all) {
    for (u32 i = 0; i < 32; i++) {
      if (!(mask >> i & 1)) continue;
      Shuffled* s = (Shuffled*)all[i];
      u32 segment = s->c >> 8 & 31, last = (i & segment) | (s->c & 31 & ~segment), j;
      bool inside;
      if (how == 0)      { j = i ^ s->b; inside = j <= last; }
      else if (how == 1) { j = i + s->b; inside = j <= last; }
      else if (how == 2) { j = i - s->b; inside = (s32)j >= (s32)last; }
      else               { j = (i & segment) | (s->b & 31 & ~segment); inside = j <= last; }
      if (!inside) j = i;
      if (!(mask >> j & 1)) fail(line, "a shuffle reads lane %u, which is not in the mask %08x", j, mask);
      s->out = ((Shuffled*)all[j])->in;
    }
  });
  return mine.out;
}

extern "C" u32 vote(u32 mask, bool p, int site, int line) {
  u32 mine[2] = {p, 0};
  together(mask, site, line, mine, [=](void** all) {
    u32 ballot = 0;
    for (int i = 0; i < 32; i++) if (mask >> i & 1) ballot |= ((u32*)all[i])[0] << i;
    for (int i = 0; i < 32; i++) if (mask >> i & 1) ((u32*)all[i])[1] = ballot;
  });
  return mine[1];
}

// ---- asynchronous copies ------------------------------------------------------------------------------------------------------

struct Copy { u64 to, from; int bytes, taken, group, line; bool landed; };
static std::vector<Copy> copies[MOST];
static int groups[MOST];

static bool readable(u64 address, int bytes) {
  for (const Region& r : regions)
    if ((char*)address >= r.start && (char*)address + bytes <= r.start + r.bytes) return true;
  return false;
}
static void land(Copy& c) {
  memcpy((void*)c.to, (void*)c.from, c.taken);
  memset((char*)c.to + c.taken, 0, c.bytes - c.taken);
  c.landed = true;
}
extern "C" void copy_async(u64 to, u64 from, int bytes, int taken, int site, int line) {
  launch->copies++;
  if (taken) look(from, bytes, false, line, PLAIN);
  else if (!readable(from, bytes)) fail(line, "a cp.async that takes nothing, but from outside of all arrays");
  look(to, bytes, true, line, ISSUED);
  if (taken) count_access(from, bytes, site);
  count_access(to, bytes, site);
  Copy c = {to, from, bytes, taken, groups[self->index], line, false};
  if (random_number() & 1) land(c);
  copies[self->index].push_back(c);
}
extern "C" void commit_async() { groups[self->index]++; }
extern "C" void wait_async(int n, int line) {
  self->line = line;
  std::vector<Copy>& all = copies[self->index];
  size_t kept = 0;
  for (Copy& c : all) {
    if (n && c.group >= groups[self->index] - n) { all[kept++] = c; continue; }
    if (!c.landed) land(c);
    look(c.to, c.bytes, true, c.line, LANDED);
  }
  all.resize(kept);
}

// ---- tensor cores ---------------------------------------------------------------------------------------------------------------

struct Matrix { u32* r; u64 row; };
extern "C" void load_matrix(u32* r, u64 row, int n, bool transposed, int site, int line) {
  Matrix mine = {r, row};
  if ((int)self->lane < 8 * n) look(row, 16, false, line, PLAIN);
  together(~0u, site, line, &mine, [=](void** all) {
    if (launch->counts) {
      launch->counts[2 * site + 1].requests++;
      launch->counts[2 * site + 1].lanes += 32;
    }
    for (int m = 0; m < n; m++) {
      u16 tile[8][8];
      int in_bank[8] = {};
      u64 rows[32];
      for (int i = 0; i < 8; i++) {
        u64 from = rows[i] = ((Matrix*)all[8 * m + i])->row;
        if (in_bank[from / 16 % 8]++) launch->conflicts++;
        memcpy(tile[i], (void*)from, 16);
      }
      if (launch->counts) count_wavefronts(launch->counts[2 * site + 1], rows, 255, 16);
      for (int lane = 0; lane < 32; lane++) {
        int i = lane / 4, j = lane % 4 * 2;
        u16 a = transposed ? tile[j][i] : tile[i][j], b = transposed ? tile[j + 1][i] : tile[i][j + 1];
        ((Matrix*)all[lane])->r[m] = a | (u32)b << 16;
      }
    }
  });
}

struct Fragments { f32* d; const u32 *a, *b; };
extern "C" void multiply_add(f32* d, const u32* a, const u32* b, int k, int site, int line) {     // d (16,8) += a (16,k) b (k,8)
  Fragments mine = {d, a, b};
  together(~0u, site, line, &mine, [=](void** all) {
    launch->products++;
    if (launch->counts) launch->counts[2 * site].requests++;
    f32 A[16][16] = {}, B[16][8] = {}, D[16][8];
    for (int lane = 0; lane < 32; lane++) {
      Fragments* f = (Fragments*)all[lane];
      int g = lane / 4, t = lane % 4 * 2;
      for (int e = 0; e < 2; e++) {
        for (int q = 0; q < k / 4; q++) A[g + q % 2 * 8][t + q / 2 * 8 + e] = half_to_float(f->a[q] >> 16 * e);
        for (int q = 0; q < k / 8; q++) B[t + q * 8 + e][g] = half_to_float(f->b[q] >> 16 * e);
        D[g][t + e] = f->d[e];
        D[g + 8][t + e] = f->d[2 + e];
      }
    }
    for (int i = 0; i < 16; i++)
      for (int l = 0; l < k; l++)
        for (int j = 0; j < 8; j++) D[i][j] += A[i][l] * B[l][j];
    for (int lane = 0; lane < 32; lane++) {
      Fragments* f = (Fragments*)all[lane];
      int g = lane / 4, t = lane % 4 * 2;
      for (int e = 0; e < 2; e++) { f->d[e] = D[g][t + e]; f->d[2 + e] = D[g + 8][t + e]; }
    }
  });
}

// ---- a launch -------------------------------------------------------------------------------------------------------------------

static void shuffled(int* order, int n) {
  for (int i = 0; i < n; i++) {
    int j = random_number() % (i + 1);
    order[i] = order[j];
    order[j] = i;
  }
}

static void run_warp(int w) {                                        // until none of its lanes can go on
  int order[32], n = count - w * 32 < 32 ? count - w * 32 : 32;
  for (bool any = true; any;) {
    any = false;
    shuffled(order, n);
    for (int i = 0; i < n; i++) {
      Thread& t = threads[w * 32 + order[i]];
      if (t.state != READY) continue;
      self = &t;
      change_stack(&scheduler, t.stack);
      any = true;
    }
  }
}

static void pass_barrier() {                                         // all that live must stand at the same one
  const Thread *first = nullptr, *stuck = nullptr;
  int waiting = 0;
  for (int i = 0; i < count; i++) {
    if (threads[i].state == AT_COLLECTIVE) stuck = &threads[i];
    if (threads[i].state != AT_BARRIER) continue;
    waiting++;
    if (!first) first = &threads[i];
    if (threads[i].site != first->site) {
      launch->other_line = first->line;
      fail(threads[i].line, "threads wait at two different barriers: %u and %u", threads[i].index, first->index);
    }
  }
  if (stuck) fail(stuck->line, "thread %u waits for lanes of its warp that do not come", stuck->index);
  if (waiting < count) fail(first->line, "%d threads wait at a barrier, %d have returned", waiting, count - waiting);
  for (int i = 0; i < count; i++) threads[i].state = READY;
  epoch++;
  launch->barriers++;
}

static void run_block() {
  alive = count;
  block_epoch = ++epoch;
  acquired.clear();
  acquired_epoch = 0;
  memset(meetings, 0, sizeof meetings);
  memset(shared_base, 0xff, launch->shared_bytes);                   // NaN
  for (int i = 0; i < count; i++) {
    Thread& t = threads[i];
    t.index = i; t.warp = i / 32; t.lane = i % 32; t.state = READY; t.line = 0;
    t.tid[0] = i % ntid[0]; t.tid[1] = i / ntid[0] % ntid[1]; t.tid[2] = i / (ntid[0] * ntid[1]);
    void** top = (void**)(stacks + (i + 1) * STACK) - 2;
    *top = (void*)life;
    t.stack = top - 6;                                               // six registers, any value
    copies[i].clear();
    groups[i] = 0;
    last_write[i] = last_fence[i] = 0;
    unfenced[i] = sees[i] = false;
  }
  while (true) {
    int order[MOST / 32], warps = (count + 31) / 32;
    shuffled(order, warps);
    for (int w = 0; w < warps; w++) run_warp(order[w]);
    self = nullptr;
    if (!alive) {
      if (launch->counts) finish_requests();
      return;
    }
    pass_barrier();
  }
}

extern "C" int run(void (*entry)(const u64*), Launch* l) {            // 1: see l->error
  launch = l; kernel = entry; self = nullptr;
  state = l->seed * 0x9e3779b97f4a7c15ull + 0x1234567887654321ull;
  count = l->block[0] * l->block[1] * l->block[2];
  if (!stacks) {
    stacks = (char*)mmap(nullptr, MOST * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    shared_base = (char*)aligned_alloc(1024, 256 << 10);
  }
  for (int i = 0; i < 3; i++) { ntid[i] = l->block[i]; nctaid[i] = l->grid[i]; }
  regions.clear();
  for (int i = 0; i < l->buffer_count; i++) regions.push_back({l->buffers[i].start, l->buffers[i].bytes, false, (bool)l->buffers[i].writable, l->buffers[i].written, {}});
  for (int i = 0; i < l->span_count; i++) regions.push_back({shared_base + l->spans[2 * i], l->spans[2 * i + 1], true, true, nullptr, {}});
  if (l->races) for (Region& r : regions) r.cells.resize(r.bytes / GRAIN + 1);
  if (l->counts) {
    pending.assign(2 * l->sites * ((count + 31) / 32), {});
    visits.assign(2 * l->sites * count, 0);
  }
  epoch = executed = 0;
  releases.clear();
  if (setjmp(abandoned)) return 1;
  for (int i = 0; i < l->block_count; i++) {
    memcpy(ctaid, l->blocks + 3 * i, sizeof ctaid);
    run_block();
  }
  l->executed = executed;
  if (l->blocks) return 0;
  static std::vector<int> order;
  order.resize((size_t)nctaid[0] * nctaid[1] * nctaid[2]);
  shuffled(order.data(), order.size());
  for (int n : order) {
    ctaid[0] = n % nctaid[0]; ctaid[1] = n / nctaid[0] % nctaid[1]; ctaid[2] = n / nctaid[0] / nctaid[1];
    run_block();
  }
  return 0;
}
