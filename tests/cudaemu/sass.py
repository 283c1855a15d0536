"""A kernel's machine code, as cuobjdump prints it: its loops, and what they are made of."""
import re
from collections import Counter

KINDS = {                                                    # of instruction -> the beginnings of their names
    "tensor": "HMMA IMMA", "matrix loads": "LDSM", "global": "LDG STG LDGSTS LDGDEPBAR ATOMG RED", "shared": "LDS STS ATOMS",
    "float": "FADD FMUL FFMA FMNMX FSEL FSETP FSET FCHK HADD HMUL HFMA HSETP HMNMX MUFU F2F F2FP F2I I2F I2FP FRND DADD DMUL DFMA DSETP",
    "control": "BRA BRX BSSY BSYNC EXIT RET CALL BAR DEPBAR WARPSYNC NOP BMOV BREAK YIELD ERRBAR MEMBAR CCTL VOTE SHFL NANOSLEEP KILL"}


def instructions(text, kernel):
    """[(address, name, operands)] of one kernel among those that cuobjdump printed, without the padding after its end."""
    body = text.partition(f"Function : {kernel}\n")[2].partition("Function : ")[0]
    found = [(int(at, 16), "NOP" if never else name, rest) for at, never, name, rest in            # ptxas pads with loads that never run
             re.findall(r"/\*([0-9a-f]+)\*/\s+(?:(@!U?PT )|@!?U?P\w+ )?([A-Z][\w.]*)\s*([^;]*);", body)]
    end = max((i for i, (at, name, rest) in enumerate(found) if name != "NOP"), default=-1)
    return found[:end]                                       # the last is a jump to itself


def loops(code):
    """[(first address, last address)] of what is jumped back over, the inner ones first."""
    found = {}
    for at, name, rest in code:
        to = re.search(r"(0x[0-9a-f]+)", rest) if name == "BRA" or name.startswith("BRA.") else None
        if to and int(to[1], 16) <= at:
            found[int(to[1], 16)] = max(at, found.get(int(to[1], 16), 0))
    return sorted(found.items(), key=lambda loop: loop[1] - loop[0])


def main_loop(code):
    """The instructions of the smallest loop that has the most tensor-core products; all of them where no loop has any."""
    bodies = [[i for i in code if first <= i[0] <= last] for first, last in loops(code)]
    return max(bodies, key=products, default=code) if any(map(products, bodies)) else code


def products(code):
    return sum(name.startswith("HMMA") for _, name, _ in code)


def mix(code):
    """How many instructions there are of each kind; "integer" is whatever KINDS does not name: addresses, comparisons, moves."""
    kind_of = {name: kind for kind, names in KINDS.items() for name in names.split()}
    return Counter(kind_of.get(re.match(r"[A-Z]+\d?[A-Z]*", name)[0], kind_of.get(name.partition(".")[0].rstrip("2"), "integer"))
                   for _, name, _ in code)
