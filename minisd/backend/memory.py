"""How much memory there is: what a run will take is held against it before the work, since a process that takes more is killed."""
import os
from pathlib import Path

try:
    import resource
except ImportError:                                          # Windows
    resource = None  # type: ignore[assignment]


def available(root="/"):
    """Bytes that this process may still take: of the machine, of its control groups (a container's limit), of its own limit.

    None where the system does not say.  root: where /proc and /sys are"""
    root = Path(root)
    found = [machine(root), *(left for group in groups(root) if (left := left_of_group(group)) is not None)]
    if resource is not None:
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            pages = words(root / "proc/self/statm")
            found.append(most - int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else most)
    return max(0, min(n for n in found if n is not None)) if any(n is not None for n in found) else None


def words(path):
    """A small file's words, [] where there is none."""
    try:
        return path.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []


def machine(root):
    """What is free or can be freed, swap included; where that is not said, all that there is."""
    lines = words(root / "proc/meminfo")
    sizes = {key: int(n) * 1024 for key, n in zip(lines, lines[1:]) if key.endswith(":") and n.isdecimal()}
    if "MemAvailable:" in sizes:
        return sizes["MemAvailable:"] + sizes.get("SwapFree:", 0)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def groups(root):
    """The folders of this process' control groups for memory, and of those around them, version 2 and 1."""
    for line in words(root / "proc/self/cgroup"):
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers in ("", "memory"):
            place = root / "sys/fs/cgroup" / controllers
            parts = Path(path.lstrip("/")).parts
            yield from (place.joinpath(*parts[:k]) for k in range(len(parts), -1, -1) if ".." not in parts)


def left_of_group(group):
    """What a control group has left: its limit, less what it holds but for files that can be read again."""
    for limit, held, cache in (("memory.max", "memory.current", "file"), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")):
        most, now = words(group / limit), words(group / held)
        if most and now and most[0].isdecimal() and now[0].isdecimal():
            stat = words(group / "memory.stat")
            again = next((int(n) for key, n in zip(stat, stat[1:]) if key == cache), 0)
            return int(most[0]) - int(now[0]) + again
    return None
