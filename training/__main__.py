"""`python -m training oracle | autoencoder | base | loras`, in this order; each goes on where it was stopped.

`oracle-more` trains the oracle that is there on newly drawn scenes, after a change of the drawings; `base-last` the
base model that is there, by the last of its stages alone.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

PARTS = ("oracle", "autoencoder", "base", "loras")
MORE = {"oracle-more": ("oracle", "train_more"), "base-last": ("base", "train_on")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, *MORE), help="default: all, in this order")
    parser.add_argument("--folder", type=Path, default=Path("out/training"), help="drawn scenes and checkpoints")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of loras: these styles and individuals")
    options = parser.parse_args()
    for part in options.parts or PARTS:
        if part in MORE:
            module, trained = MORE[part]
            getattr(importlib.import_module(f".{module}", __package__), trained)(options.folder)
            continue
        chosen = {"names": options.only} if part == "loras" and options.only else {}
        importlib.import_module(f".{part}", __package__).train(options.folder, **chosen)


if __name__ == "__main__":
    main()
