"""PTX becomes C++: each kernel one function that a thread runs, each instruction one statement.

What NVRTC made of the source is executed, inline assembly included; an instruction that is not known here is an error, never
skipped.  [PTX] NVIDIA, Parallel Thread Execution ISA, the section of the instruction's name."""
import math
import re

TYPES = dict(pred="bool", b8="u8", b16="u16", b32="u32", b64="u64", f16="u16", f16x2="u32",
             **{t: t for t in "u8 u16 u32 u64 s8 s16 s32 s64 f32 f64".split()})
WIDTH = {t: int(re.search(r"\d+$", t)[0]) // 8 for t in TYPES if t not in ("pred", "f16x2")} | {"f16x2": 4}
REGISTERS = {f"%{name}.{axis}": f"{array}[{i}]" for name, array in
             dict(tid="self->tid", ntid="ntid", ctaid="ctaid", nctaid="nctaid").items() for i, axis in enumerate("xyz")}
REGISTERS.update({"%laneid": "self->lane", "%warpid": "self->warp"})
COMPARE = dict(eq="==", ne="!=", lt="<", le="<=", gt=">", ge=">=", lo="<", ls="<=", hi=">", hs=">=")
SYMBOL = dict(add="+", sub="-", mul="*", div="/", rem="%", xor="^", **{"and": "&", "or": "|"})
ROUNDING = dict(rni="nearbyint", rzi="trunc", rmi="floor", rpi="ceil")
SHARED_GAP = 64                                              # between shared arrays: an index too far is in none of them


class Unknown(Exception):
    """An instruction or operand that this translator does not know."""


def operands(text):
    """"a, {b, c}, [d+4]" -> ["a", "{b, c}", "[d+4]"]"""
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|[^,])+", text)] if text.strip() else []


def within(braces):
    """"{a, b}" -> ["a", "b"], and "a" -> ["a"]"""
    return operands(braces[1:-1]) if braces.startswith("{") else [braces]


def statements(body):
    """"{", "}", "label:", ".directive ...", "@%p1 add.u32 ..." one at a time, comments gone."""
    pattern = r"\.(?:loc|file)\s[^\n]*\n|[{}]|[\w$]+:(?!:)|(?:\{[^{};]*\}|[^{};])+;"
    at, text = 0, body
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at >= len(text):
            return
        match = re.compile(pattern).match(text, at)
        if not match:
            raise Unknown(text[at:at + 80])
        at = match.end()
        yield " ".join(match[0].rstrip(";").split())


class Kernel:
    """One .entry: `code`, its C++; `spans`, its static shared arrays; `dynamic`, where the launch's own begins;
    `types`, of its parameters; `most`, threads of a block that it was compiled for; `sites`, each instruction's (name, line), counted
    from 1."""

    def __init__(self, name, parameters, directives, body, constants, dynamic_names, files):
        self.name, self.files, self.line, self.sites = name, files, 0, [("", 0)]
        bound = re.search(r"\.maxntid (\d+)(?:, (\d+))?(?:, (\d+))?", directives)
        self.most = math.prod(int(n or 1) for n in bound.groups()) if bound else 1024
        self.types = [t for t, _ in parameters]
        self.symbols = {**constants, **{p: f"({i} * 8)" for i, (_, p) in enumerate(parameters)}}
        self.scoped, self.spans, self.dynamic, self.lines, self.variables = [], [], 0, [], []
        body = list(statements(body))
        for s in body:
            shared = re.match(r"\.shared \.align (\d+) \.(\w+) ([\w$]+)(?:\[(\d+)\])?", s)
            if shared:
                align, size = int(shared[1]), WIDTH[shared[2]] * int(shared[4] or 1)
                self.dynamic = -(-self.dynamic // align) * align
                self.symbols[shared[3]] = f"{self.dynamic}ull"
                self.spans.append((self.dynamic, size))
                self.dynamic += size + SHARED_GAP
        self.dynamic = -(-self.dynamic // 128) * 128
        self.symbols.update({n: f"{self.dynamic}ull" for n in dynamic_names})
        for s in body:
            self.statement(s)
        self.code = "\n".join([f'extern "C" void {name}(const u64* arguments) {{', "  char* shared = shared_memory(); (void)shared;",
                               *self.variables, *self.lines, "}"])

    @property
    def site(self):
        """The number of the instruction being translated."""
        return len(self.sites) - 1

    # ---- statements ----

    def statement(self, s):
        if s == "{":
            self.scoped.append({})
            self.lines.append("{")
        elif s == "}":
            self.scoped.pop()
            self.lines.append("}")
        elif s.endswith(":"):
            self.lines.append(f"{label(s[:-1])}: ;")
        elif s.startswith(".loc "):
            file, line = map(int, s.split()[1:3])
            self.line = line if self.files.get(file) is None else self.files[file] << 16 | line
        elif s.startswith(".reg"):
            self.declare(s)
        elif s.startswith(".local"):
            align, name, size = re.match(r"\.local \.align (\d+) \.b8 ([\w$]+)\[(\d+)\]", s).groups()
            self.variables.append(f"alignas({align}) char local_{label(name)}[{size}];")
            self.symbols[name] = f"(u64)local_{label(name)}"
        elif s.startswith((".pragma", ".shared", ".file", ".section")):
            pass
        else:
            guard, negated, op, rest = re.match(r"(?:@((!?)%[\w$]+) )?([\w.:]+)\s*(.*)", s).groups()
            self.sites.append((op, self.line))
            condition = "" if guard is None else f"if ({'!' if negated else ''}{self.name_of(guard.lstrip('!'))}) "
            self.lines.append("RAN " + condition + "{ " + self.instruction(op.replace("::", "_").split("."), operands(rest)) + " }")

    def declare(self, s):
        kind, names = re.match(r"\.reg \.(\w+) (.*)", s).groups()
        for name in operands(names):
            many = re.match(r"%([\w$]+)<(\d+)>", name)
            if many:
                self.variables.append(f"{TYPES[kind]} " + ", ".join(f"r_{many[1]}{i}" for i in range(int(many[2]))) + ";")
            else:                                            # of inline assembly: known within its braces
                own = f"s{self.site}_{len(self.variables)}_{label(name.lstrip('%'))}"
                self.variables.append(f"{TYPES[kind]} {own};")
                (self.scoped[-1] if self.scoped else self.symbols)[name] = own

    # ---- operands ----

    def name_of(self, register):
        for scope in reversed(self.scoped):
            if register in scope:
                return scope[register]
        if register in self.symbols:
            return self.symbols[register]
        if register.startswith("%"):
            return "r_" + label(register[1:])
        raise Unknown(f"operand {register!r}")

    def read(self, x, t):
        """Operand `x` as type `t` of PTX."""
        c = TYPES[t]
        if x.startswith("!"):
            return f"!{self.read(x[1:], t)}"
        if x in REGISTERS:
            return f"rd<{c}>({REGISTERS[x]})"
        if re.fullmatch(r"0[fF][0-9A-Fa-f]{8}", x):
            return f"rd<{c}>(rd<f32>(0x{x[2:]}u))"
        if re.fullmatch(r"0[dD][0-9A-Fa-f]{16}", x):
            return f"rd<{c}>(rd<f64>((u64)0x{x[2:]}ull))"
        if re.fullmatch(r"-?(0x[0-9A-Fa-f]+|\d+)U?", x):
            return f"(({c}){x.rstrip('U')}{'ull' if x.startswith('0x') else 'll'})"
        name = self.name_of(x)
        return name if t == "pred" else f"rd<{c}>({name})"

    def write(self, x, value):
        return f"(void)({value});" if x == "_" else f"wr({self.name_of(x)}, {value});"

    def address(self, x, space):
        """"[%rd1+16]" -> where that is in this process."""
        base, offset = re.fullmatch(r"\[\s*([^\s+]+)\s*(?:\+\s*(-?\w+))?\s*\]", x).groups()
        at = f"((u64){self.name_of(base)} + (s64)({offset or 0}))"
        return f"((u64)shared + (u32){at})" if space == "shared" else at

    # ---- instructions ----

    def instruction(self, op, args):
        maker = getattr(self, f"do_{op[0]}", None)
        if maker is None:
            raise Unknown(f"{'.'.join(op)} {', '.join(args)}")
        return maker(op, args)

    def simple(self, op, args, expression):
        """expression over a, b, c: the operands as the instruction's type."""
        t, n = op[-1], len(args) - 1
        ftz = "ftz" in op and t == "f32"
        values = [self.read(x, t) for x in args[1:]]
        if ftz:
            values = [f"flushed({v})" for v in values]
        if t == "f16x2":
            halves = [f"float_to_half({expression.format(**{k: f'half_to_float({v} >> {at})' for k, v in zip('abc', values)})})"
                      for at in (0, 16)]
            return self.write(args[0], f"(u32){halves[0]} | (u32){halves[1]} << 16")
        if t == "f16":
            values = [f"half_to_float({v})" for v in values]
        result = expression.format(**dict(zip("abc"[:n], values)))
        result = f"saturated({result})" if "sat" in op else result
        result = f"flushed({result})" if ftz else result
        return self.write(args[0], f"float_to_half({result})" if t == "f16" else f"({TYPES[t]})({result})")

    def arithmetic(self, op, args):
        t, name = op[-1], op[0]
        if "wide" in op:
            wide = t[0] + str(2 * int(t[1:]))
            more = f" + {self.read(args[3], wide)}" if name == "mad" else ""
            return self.write(args[0], f"(({wide}){self.read(args[1], t)} * ({wide}){self.read(args[2], t)}{more})")
        if t[0] == "f":
            directed = {"rz", "rm", "rp"} & set(op)
            if directed and t == "f32":                      # in double, where a product is exact, and then rounded
                e = "(f64){a} * {b} + {c}" if name in ("fma", "mad") else f"(f64){{a}} {SYMBOL[name]} {{b}}"
                return self.simple([x for x in op if x not in directed], args, f"rounded_{directed.pop()}({e})")
            f = "fmaf" if t != "f64" else "fma"
            return self.simple(op, args, f"{f}({{a}}, {{b}}, {{c}})" if name in ("fma", "mad") else f"{{a}} {SYMBOL[name]} {{b}}")
        if "hi" in op:
            e = f"(((__int128){self.read(args[1], t)} * {self.read(args[2], t)}) >> {int(t[1:])})"
            return self.write(args[0], f"({TYPES[t]}){e}")
        u = "u" + t[1:]                                      # wraps around, signed or not
        e = f"({u})({self.read(args[1], u)} {'*' if name == 'mad' else SYMBOL[name]} {self.read(args[2], u)})"
        return self.write(args[0], f"({u})({e} + {self.read(args[3], u)})" if name == "mad" else e)

    do_add = do_sub = do_mul = do_mad = do_fma = arithmetic

    def do_div(self, op, args):
        if op[-1][0] == "f":
            return self.simple(op, args, "{a} / {b}")
        return f'if (!{self.read(args[2], op[-1])}) fail({self.line}, "integer division by zero"); ' + self.simple(
            op, args, f"{{a}} {SYMBOL[op[0]]} {{b}}")

    do_rem = do_div

    def bits(self, op, args):
        if op[-1] == "pred":
            return f"{self.name_of(args[0])} = {self.read(args[1], 'pred')} {SYMBOL[op[0]]} {self.read(args[2], 'pred')};"
        return self.simple(op, args, f"{{a}} {SYMBOL[op[0]]} {{b}}")

    do_and = do_or = do_xor = bits

    def do_not(self, op, args):
        return f"{self.name_of(args[0])} = !{self.read(args[1], 'pred')};" if op[-1] == "pred" else self.simple(op, args, "~{a}")

    def do_neg(self, op, args): return self.simple(op, args, "-{a}")
    def do_abs(self, op, args): return self.simple(op, args, "fabs({a})" if op[-1][0] == "f" else "({a} < 0 ? -{a} : {a})")
    def do_min(self, op, args): return self.simple(op, args, "fmin({a}, {b})" if op[-1][0] == "f" else "({a} < {b} ? {a} : {b})")
    def do_max(self, op, args): return self.simple(op, args, "fmax({a}, {b})" if op[-1][0] == "f" else "({a} > {b} ? {a} : {b})")
    def do_ex2(self, op, args): return self.simple(op, args, "exp2f({a})")
    def do_lg2(self, op, args): return self.simple(op, args, "log2f({a})")
    def do_sin(self, op, args): return self.simple(op, args, "sinf({a})")
    def do_cos(self, op, args): return self.simple(op, args, "cosf({a})")
    def do_tanh(self, op, args): return self.simple(op, args, "tanhf({a})")
    def do_sqrt(self, op, args): return self.simple(op, args, "sqrtf({a})")
    def do_rsqrt(self, op, args): return self.simple(op, args, "1 / sqrtf({a})")
    def do_rcp(self, op, args): return self.simple(op, args, "1 / {a}")
    def do_popc(self, op, args): return self.simple(op, args, "__builtin_popcountll({a})")
    def do_clz(self, op, args): return self.simple(op, args, "({a} ? __builtin_clz({a}) : 32)")
    def do_copysign(self, op, args): return self.simple(op, args, "copysignf({b}, {a})")     # the sign is the first operand's
    def do_lop3(self, op, args): return self.write(args[0], f"logic({', '.join(self.read(x, 'u32') for x in args[1:])})")
    def do_prmt(self, op, args): return self.write(args[0], f"permuted({', '.join(self.read(x, 'u32') for x in args[1:])})")

    def do_bfe(self, op, args):
        if op[-1] != "u32":
            raise Unknown(".".join(op))
        return self.write(args[0], f"bit_field({', '.join(self.read(x, 'u32') for x in args[1:])})")

    def do_bfi(self, op, args):
        a, into = (self.read(x, op[-1]) for x in args[1:3])
        return self.write(args[0], f"bit_insert({a}, {into}, {', '.join(self.read(x, 'u32') for x in args[3:])})")

    def do_shl(self, op, args):
        t, n = "u" + op[-1][1:], self.read(args[2], "u32")
        return self.write(args[0], f"({n} >= {8 * WIDTH[t]} ? ({t})0 : ({t})({self.read(args[1], t)} << {n}))")

    def do_shr(self, op, args):
        t, n = op[-1].replace("b", "u"), self.read(args[2], "u32")
        most = 8 * WIDTH[t]
        beyond = f"({self.read(args[1], t)} >> {most - 1})" if t[0] == "s" else "0"
        return self.write(args[0], f"({TYPES[t]})({n} >= {most} ? {beyond} : {self.read(args[1], t)} >> {n})")

    def do_shf(self, op, args):
        low, high, n = (self.read(x, "u32") for x in args[1:])
        n = f"({n} & 31)" if "wrap" in op else f"({n} > 32 ? 32u : {n})"
        return self.write(args[0], f"funnel((u64){high} << 32 | {low}, {n}, {'true' if 'l' in op else 'false'})")

    def do_selp(self, op, args):
        t = op[-1]
        return self.write(args[0], f"({self.read(args[3], 'pred')} ? {self.read(args[1], t)} : {self.read(args[2], t)})")

    def do_setp(self, op, args):
        t, how = op[-1], op[1]
        t = "u" + t[1:] if how in ("lo", "ls", "hi", "hs") else t
        a, b = (self.read(x, t) for x in args[1:3])
        a, b = (f"half_to_float({v})" for v in (a, b)) if t == "f16" else (a, b)
        if how in ("num", "nan"):
            e = f"{'!' if how == 'nan' else ''}({a} == {a} && {b} == {b})"
        elif how == "ne" and t[0] == "f":                    # false if either is no number
            e = f"({a} < {b} || {a} > {b})"
        elif len(how) == 3 and how.endswith("u"):            # true if either is no number
            opposite = dict(equ=None, neu="==", ltu=">=", leu=">", gtu="<=", geu="<")[how]
            e = f"!({a} < {b} || {a} > {b})" if opposite is None else f"!({a} {opposite} {b})"
        else:
            e = f"({a} {COMPARE[how]} {b})"
        if op[2] in ("and", "or", "xor"):
            e = f"({e} {SYMBOL[op[2]]} {self.read(args[3], 'pred')})"
        p, _, q = args[0].partition("|")
        return f"bool e = {e}; {self.name_of(p)} = e;" + (f" {self.name_of(q)} = !e;" if q else "")

    def do_mov(self, op, args):
        t = op[-1]
        if t == "pred":
            return f"{self.name_of(args[0])} = {self.read(args[1], 'pred')};"
        if args[0].startswith("{"):
            parts = within(args[0])
            n = 8 * WIDTH[t] // len(parts)
            each = " ".join(self.write(x, f"(u{n})(v >> {n * i})") for i, x in enumerate(parts))
            return f"{TYPES[t]} v = {self.read(args[1], t)}; {each}"
        if args[1].startswith("{"):
            parts = within(args[1])
            n = 8 * WIDTH[t] // len(parts)
            return self.write(args[0], " | ".join(f"({TYPES[t]}){self.read(x, f'u{n}')} << {n * i}" for i, x in enumerate(parts)))
        return self.write(args[0], self.read(args[1], t))

    def do_cvta(self, op, args):
        if "shared" not in op:
            return self.write(args[0], self.read(args[1], "u64"))
        return self.write(args[0], f"({self.read(args[1], 'u64')} {'-' if 'to' in op else '+'} (u64)shared)")

    def do_cvt(self, op, args):
        to, of = op[-2:]
        if to == "f16x2":
            high, low = (f"float_to_half({self.read(x, 'f32')})" for x in args[1:])
            return self.write(args[0], f"(u32){high} << 16 | {low}")
        v = self.read(args[1], of)
        v = f"half_to_float({v})" if of == "f16" else f"flushed({v})" if "ftz" in op and of == "f32" else v
        rounding = next((ROUNDING[r] for r in op if r in ROUNDING), None)
        if to == "f16":
            return self.write(args[0], f"float_to_half((f32){v})")
        if to[0] == "f":
            v = f"(f32)({rounding}({v}))" if rounding else f"({to}){v}"
            return self.write(args[0], f"saturated({v})" if "sat" in op else v)
        if of[0] == "f":
            return self.write(args[0], f"to_integer<{to}>({rounding or 'trunc'}({v}))")
        return self.write(args[0], f"({to}){v}")

    # ---- memory ----

    def space(self, op):
        return next((s for s in ("param", "shared", "global", "local", "const") if s in op), "generic")

    def do_ld(self, op, args):
        t, space, into = op[-1], self.space(op), within(args[0])
        if space == "param":
            base, offset = re.fullmatch(r"\[([\w$]+)(?:\+(\d+))?\]", args[1]).groups()
            return self.write(into[0], f"*(const {TYPES[t]}*)((const char*)arguments + {self.symbols[base]} + {offset or 0})")
        size = WIDTH[t]
        return (f"u64 at = {self.address(args[1], space)}; {'touch_fixed' if 'nc' in op else 'touch'}"
                f"(at, {size * len(into)}, false, {self.site}, {self.line}); {TYPES[t]} v[{len(into)}]; "
                f"memcpy(v, (void*)at, {size * len(into)}); " + " ".join(self.write(x, f"v[{i}]") for i, x in enumerate(into)))

    do_ldu = do_ld

    def do_st(self, op, args):
        t, values = op[-1], within(args[1])
        return (f"u64 at = {self.address(args[0], self.space(op))}; touch(at, {WIDTH[t] * len(values)}, true, {self.site}, "
                f"{self.line}); {TYPES[t]} v[] = {{{', '.join(self.read(x, t) for x in values)}}}; memcpy((void*)at, v, sizeof v);")

    def do_cp(self, op, args):
        what = op[2]
        if op[1] != "async":
            raise Unknown(".".join(op))
        if what == "commit_group":
            return "commit_async();"
        if what in ("wait_group", "wait_all"):
            return f"wait_async({args[0] if args else 0}, {self.line});"
        taken = self.read(args[3], "u32") if len(args) > 3 else args[2]
        return (f"copy_async({self.address(args[0], 'shared')}, {self.address(args[1], 'global')}, {args[2]}, {taken}, "
                f"{self.site}, {self.line});")

    # ---- control, and what a warp does together ----

    def do_bra(self, op, args): return f"goto {label(args[0])};"
    def do_ret(self, op, args): return "return;"
    def do_prefetch(self, op, args): return ""

    do_exit, do_discard = do_ret, do_prefetch

    def do_membar(self, op, args):
        return "" if {"cta", "proxy", "alias"} & set(op) else "fence();"           # a barrier orders what a block sees of itself

    do_fence = do_membar

    def do_atom(self, op, args):
        if op[-2:] not in (["add", "u32"], ["inc", "u32"]) or self.space(op) != "global" or {"cta", "cluster"} & set(op):
            raise Unknown(".".join(op))
        at, value = self.address(args[1], "global"), self.read(args[2], "u32")
        return self.write(args[0], f"atomic({['add', 'inc'].index(op[-2])}, {at}, {value}, {self.site}, {self.line})")

    def do_bar(self, op, args):
        if op[1] == "warp":
            return f"sync_warp({self.read(args[0], 'u32')}, {self.site}, {self.line});"
        if op[1] != "sync" or args != ["0"]:
            raise Unknown(f"{'.'.join(op)} {', '.join(args)}")
        return f"barrier({self.site}, {self.line});"

    do_barrier = do_bar

    def do_shfl(self, op, args):
        how = ["bfly", "down", "up", "idx"].index(op[2])
        b, c, mask = (self.read(x, "u32") for x in args[2:])
        into, _, inside = args[0].partition("|")
        if inside not in ("", "_"):
            where = f" {self.name_of(inside)} = true;"       # nothing that NVRTC makes of the intrinsics asks
        else:
            where = ""
        return self.write(into, f"shuffle({how}, {mask}, {self.read(args[1], 'u32')}, {b}, {c}, {self.site}, {self.line})") + where

    def do_vote(self, op, args):
        call = f"vote({self.read(args[2], 'u32')}, {self.read(args[1], 'pred')}, {self.site}, {self.line})"
        if op[2] == "ballot":
            return self.write(args[0], call)
        return f"{self.name_of(args[0])} = {call} " + ("!= 0;" if op[2] == "any" else f"== {self.read(args[2], 'u32')};")

    def do_ldmatrix(self, op, args):
        into = within(args[0])
        return (f"u32 v[4]; load_matrix(v, {self.address(args[1], 'shared')}, {len(into)}, {'true' if 'trans' in op else 'false'}, "
                f"{self.site}, {self.line}); " + " ".join(self.write(x, f"v[{i}]") for i, x in enumerate(into)))

    def do_mma(self, op, args):
        if op[3] not in ("m16n8k16", "m16n8k8") or op[-4:] != ["f32", "f16", "f16", "f32"]:
            raise Unknown(".".join(op))
        d, a, b, c = (within(x) for x in args)
        u = lambda xs: ", ".join(self.read(x, "u32") for x in xs)                  # noqa: E731
        return (f"f32 d[] = {{{', '.join(self.read(x, 'f32') for x in c)}}}; u32 a[] = {{{u(a)}}}, b[] = {{{u(b)}}}; "
                f"multiply_add(d, a, b, {op[3].partition('k')[2]}, {self.site}, {self.line}); "
                + " ".join(self.write(x, f"d[{i}]") for i, x in enumerate(d)))


def label(name):
    return name.replace("$", "_")


def translate(ptx):
    """PTX of one compilation -> (C++, {name: Kernel}, files), `files` being the names that a line's upper half counts."""
    files = {int(n): name for n, name in re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', ptx, re.M)}
    names = sorted(set(files.values()))
    numbers = {n: names.index(name) for n, name in files.items()}
    text = re.sub(r"//[^\n]*", "", re.sub(r"/\*.*?\*/", "", ptx, flags=re.S))
    parts, kernels, constants = ['#include "machine.h"'], {}, {}
    constant = r"^(?:\.visible )?\.(?:global|const)\s+(?:\.align \d+ )?\.(\w+) ([\w$]+)(\[\d*\])?\s*=\s*([^;]*);"
    for kind, name, count, values in re.findall(constant, text, re.M):
        bits = re.sub(r"0[fF]([0-9A-Fa-f]{8})", r"0x\1u", values.strip(" {}"))                  # floats as their bits
        parts.append(f"static u{8 * WIDTH[kind]} c_{label(name)}{count or '[1]'} = {{{bits}}};")
        constants[name] = f"(u64)c_{label(name)}"
    dynamic = re.findall(r"^\.extern \.shared[^;]*?([\w$]+)\[\];", text, re.M)
    if re.search(r"^\.(?:visible )?(?:weak )?\.?func", text, re.M):
        raise Unknown("a function that is not inlined")
    for match in re.finditer(r"\.entry ([\w$]+)\s*\((.*?)\)([^{;]*)\{", text, re.S):
        depth, end = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        parameters = re.findall(r"\.param \.(\w+)\s+(?:\.ptr[^,\n]*?)?([\w$]+)(?=\s*(?:,|$))", match[2].strip())
        kernel = Kernel(match[1], parameters, match[3], text[match.end():end - 1], constants, dynamic, numbers)
        kernels[match[1]] = kernel
        parts.append(kernel.code)
    known = "".join(f"(u64){at.removeprefix('(u64)')}, sizeof {at.removeprefix('(u64)')}, " for at in constants.values())
    parts.append(f'extern "C" {{ u64 constants[] = {{{known}0}}; }}')
    return "\n".join(parts) + "\n", kernels, names
