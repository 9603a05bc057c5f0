"""`python -m training oracle | autoencoder | base | loras`, in this order; each goes on where it was stopped."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

PARTS = ("oracle", "autoencoder", "base", "loras")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=PARTS, help="default: all, in this order")
    parser.add_argument("--folder", type=Path, default=Path("out/training"), help="drawn scenes and checkpoints")
    options = parser.parse_args()
    for part in options.parts or PARTS:
        importlib.import_module(f".{part}", __package__).train(options.folder)


if __name__ == "__main__":
    main()
