"""How much memory there is to hold data in."""

from __future__ import annotations

import os
import re
from pathlib import Path

_UNKNOWN = 16 * 2**30


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: what the system has available, or the limit of its group leaves."""
    found = [_available(root / "proc/meminfo")]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        group = root / "sys/fs/cgroup"
        if (most := _number(group / limit)) is not None:
            found.append(max(0, most - (_number(group / used) or 0)))
    return min([n for n in found if n is not None], default=_UNKNOWN)


def _available(meminfo: Path) -> int | None:
    if not meminfo.is_file():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in os.sysconf_names else None
    line = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    return None if line is None else int(line[1]) * 1024


def _number(path: Path) -> int | None:
    """None where there is no limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
