"""What is done to inputs.  r: a random.Random, so that a seed repeats it."""

import copy
import json
import struct

ODD = [
    None,
    True,
    False,
    0,
    1,
    -1,
    -5,
    3,
    2**31,
    2**63,
    2**64,
    10**400,
    1e300,
    1e-300,
    -0.0,
    0.5,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    "x",
    "1",
    "²",
    "٣",
    "../x",
    "/etc/passwd",
    "a" * 5000,
    "\x1b[31m",
    "\u202e",
    "\x00",
    "\ud800",
    "(.*)*x",
    [],
    [1],
    [1, 2, 3],
    [[]],
    ["x"],
    [None],
    {},
    {"content": 5},
    {"a": {"b": []}},
    "%s%n",
    "NaN",
    "{}",
    " ",
    "\n",
]
WORDS = [
    "cat",
    "a fox",
    "(",
    ")",
    "[",
    "]",
    ":",
    "|",
    "AND",
    "BREAK",
    "1.2",
    "0.5",
    ":.5]",
    "[a:b:3]",
    "(x:1.5)",
    "\\(",
    "\\",
    ",",
    "<lora:x:1>",
    "<hypernet:y:2>",
    "\n",
    "Negative prompt: ",
    "Steps: 3, Sampler: Euler",
    "日本",
    "👩‍🚀",
    "\x1b[2J",
    "\u202e",
    "\x00",
    "\ud800",
    " ",
    "é",
    "a" * 300,
    "(" * 50,
    "[" * 50,
    "::",
    ":1e999)",
    ":-3)",
    "<|endoftext|>",
    "'s",
    "1e5",
    "AND :2",
    "]" * 20,
    "|" * 20,
]


def text(r, most=40):
    found = "".join(r.choice(WORDS) + r.choice(["", " "]) for _ in range(r.randrange(most)))
    return found * r.choice([1, 1, 1, 1, 1, 1, 1, 3, 50, 2000]) if r.random() < 0.3 else found


def odd(r):
    value = copy.deepcopy(r.choice(ODD))  # it may be changed in its turn, and put into itself
    return text(r, 6) if r.random() < 0.1 else value


def document(r, value, changes=2):
    """JSON with some of its values, keys or parts changed."""
    value = json.loads(json.dumps(value))
    for _ in range(r.randint(1, changes)):
        places = list(inner(value))
        if not places:
            return odd(r)
        holder, key = r.choice(places)
        what = r.random()
        if what < 0.6:
            holder[key] = odd(r)
        elif what < 0.75:
            del holder[key]
        elif what < 0.85 and isinstance(holder, dict):
            holder[str(r.choice(ODD))[:50]] = holder.pop(key)
        elif isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] = r.choice([holder[key] + 1, holder[key] * 2, -holder[key], holder[key] / 3, float(holder[key])])
        elif isinstance(holder[key], list):
            holder[key] = holder[key] * r.choice([0, 2, 3]) + [odd(r)] * r.choice([0, 1])
        else:
            holder[key] = [holder[key]]
    return value


def inner(value):
    """Every (dictionary or list, key) within."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(items)[:400]:
        yield value, key
        yield from inner(child)


def written(r, value):
    """JSON as bytes, now and then damaged as a text."""
    found = json.dumps(value).encode("utf-8", "surrogatepass")
    what = r.random()
    if what < 0.08:
        return some_bytes(r, found)
    if what < 0.1:
        return b"[" * 100_000 + b"]" * 100_000
    if what < 0.12:
        return b'{"a": ' * 50_000
    if what < 0.14:
        return found[:-1] + b', "x": ' + b"9" * 5000 + b"}"
    return found


def some_bytes(r, found):
    """A file with some bytes changed, cut, repeated or put in."""
    found = bytearray(found)
    for _ in range(r.choice([1, 1, 2, 8, 64])):
        at = r.randrange(len(found) + 1)
        what = r.randrange(5)
        if what == 0 and at < len(found):
            found[at] = r.randrange(256)
        elif what == 1:
            found[at:at] = r.randbytes(r.choice([1, 4, 100]))
        elif what == 2:
            del found[at : at + r.choice([1, 4, 100, len(found)])]
        elif what == 3 and len(found) > 8:
            found[at : at + 4] = struct.pack("<I", r.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 20]))
        else:
            found[at:at] = found[at : at + r.choice([1, 10, 1000])]
    return bytes(found)


def safetensors(r, found):
    """A safetensors file with its header changed, or bytes of it."""
    size = int.from_bytes(found[:8], "little")
    header, data = json.loads(found[8 : 8 + size]), found[8 + size :]
    what = r.random()
    if what < 0.15:
        return some_bytes(r, found[: 8 + size]) + data
    if what < 0.2:
        return found[: r.randrange(len(found))]
    if what < 0.3:
        return found[: 8 + size] + some_numbers(r, data)
    names = [n for n in header if n != "__metadata__"]
    for _ in range(r.choice([1, 1, 2, 5])):
        name = r.choice(names)
        if not isinstance(header.get(name), dict) or "shape" not in header[name]:
            continue
        entry, what = header[name], r.randrange(9)
        if what == 0:
            del header[name]
        elif what == 1:
            header[other_name(r, name)] = header.pop(name)
        elif what == 2:
            entry["shape"] = r.choice(
                [
                    entry["shape"][::-1],
                    entry["shape"] + [1],
                    [1] + entry["shape"],
                    entry["shape"][:-1],
                    [],
                    [1, *entry["shape"][1:-1], entry["shape"][0] * entry["shape"][-1]] if len(entry["shape"]) > 1 else [-1],
                ]
            )
        elif what == 3:
            entry["dtype"] = r.choice(["F16", "BF16", "F32", "F64", "I8", "U8", "I64", "BOOL", "F8_E4M3", "I16", "X", 5])
        elif what == 4:
            entry["data_offsets"] = r.choice(
                [[0, 0], [0, 4], [entry["data_offsets"][1], entry["data_offsets"][0]], [2**60, 2**61], [-1, 3]]
            )
        elif what == 5:
            header["__metadata__"] = r.choice(
                [
                    {"lora_adapter_metadata": r.choice(["[" * 3000, "5", '{"unet.lora_alpha": 1e999}', '{"a": 1'])},
                    {"format": "pt"},
                    5,
                    {"a": 5},
                    {"x": "\x1b[2J" * 10},
                ]
            )
        elif what == 6:
            header[other_name(r, name)] = dict(entry)
        elif what == 7:
            header[name] = odd(r)
        else:
            other = r.choice(names)
            if other in header:
                header[name], header[other] = header[other], header[name]
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


def other_name(r, name):
    parts = name.split(".")
    k = r.randrange(len(parts))
    return r.choice(
        [
            name + ".weight",
            name.rpartition(".")[0],
            name.upper(),
            name.replace(".", "_"),
            "model.diffusion_model." + name,
            ".".join([*parts[:k], r.choice(["²", "9" * 5000, "99999999999", "-1", "", "weight", "\x1b[31m", "٣"]), *parts[k + 1 :]]),
            "a." * r.choice([1, 20, 5000]) + name,
            "alpha",
            "lora_unet_" + name,
            "emb_params",
            "edm_mean",
            "",
        ]
    )


def some_numbers(r, data):
    """Weights with NaN, infinity and large numbers among them."""
    found = bytearray(data)
    for _ in range(r.choice([1, 10, 1000])):
        at = r.randrange(max(1, len(found) - 4)) & ~3
        found[at : at + 4] = r.choice(
            [struct.pack("<f", float("nan")), struct.pack("<f", float("inf")), struct.pack("<f", 3e38), b"\0\0\0\0"]
        )
    return bytes(found)
