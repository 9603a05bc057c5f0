"""Run by the WebUI at every launch: checks what is installed, says in one line what does not fit, installs nothing."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version

MINIMUM = {"torch": (2, 1), "pydantic": (1, 10), "safetensors": (0, 4), "numpy": (1, 24), "Pillow": (9, 5)}


def problems():
    """What does not fit, as short texts."""
    found = []
    running = sys.version_info[:2]
    if running < (3, 10):
        found.append(f"Python {running[0]}.{running[1]} is too old, 3.10 is needed")
    for package, minimum in MINIMUM.items():
        needed = ".".join(map(str, minimum))
        try:
            installed = version(package)
        except PackageNotFoundError:
            found.append(f"{package} is not installed, {needed} is needed")
            continue
        numbers = tuple(int(number) for number in re.findall(r"\d+", installed)[:2])
        if numbers < minimum:
            found.append(f"{package} {installed} is too old, {needed} is needed")
    return found


if __name__ == "__main__":
    unmet = problems()
    if unmet:
        print(f"SciArt: {'; '.join(unmet)}")
