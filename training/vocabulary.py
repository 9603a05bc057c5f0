"""The tiny world's words in the format of CLIP's tokenizer: every word is one token, other text falls to bytes.

words.txt has the words of captions first, then those of the shipped presets' prompts. Trained weights know tokens by
their number: whoever changes the list trains anew.
"""

from __future__ import annotations

import json
from pathlib import Path

WORDS = Path(__file__).with_name("words.txt")


def write_vocabulary(folder: Path) -> None:
    """`vocab.json` and `merges.txt` as CLIP's byte-pair encoding reads them."""
    symbols = byte_symbols()
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    merges: list[tuple[str, str]] = []
    for word in WORDS.read_text(encoding="utf-8").split():
        letters = [*word[:-1], word[-1] + "</w>"]
        while len(pieces := _encoded(letters, merges)) > 1:  # anew: a pair may occur twice in a word
            merges.append((pieces[0], pieces[1]))
            tokens.append(pieces[0] + pieces[1])
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def byte_symbols() -> list[str]:
    """The printable character that byte-level BPE writes for each byte (GPT-2, `bytes_to_unicode`)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)]


def _encoded(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding: joins the pair that was learned first, again and again."""
    rank = {pair: i for i, pair in enumerate(merges)}
    while len(pieces) > 1:
        best = min(range(len(pieces) - 1), key=lambda i: rank.get((pieces[i], pieces[i + 1]), len(rank)))
        if (pieces[best], pieces[best + 1]) not in rank:
            break
        pieces = [*pieces[:best], pieces[best] + pieces[best + 1], *pieces[best + 2:]]
    return pieces
