"""Files that hold no tensors, or not as their name says: what they are and what to do, from their first bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from ..errors import SciArtError

HEAD = 2**10
"""bytes that tell"""
LFS = b"version https://git-lfs"
_AGAIN = "download it again"
_TORCH = "a PyTorch file under a name that says safetensors; give it the ending .pt"
_MAGICS = (
    (b"\x1f\x8b", "a gzip archive; unpack it and put in what is inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and put in what is inside"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it and put in what is inside"),
    (b"GGUF", "a GGUF model, which is a whole model and no LoRA"),
    (b"\x89PNG", "a picture (PNG); it may be the preview of a LoRA, which is another file"),
    (b"\xff\xd8\xff", "a picture (JPEG); it may be the preview of a LoRA, which is another file"),
    (b"RIFF", "a picture or a sound; it may be the preview of a LoRA, which is another file"),
    (b"%PDF", "a PDF document"),
)
_HTML = re.compile(rb"\s*<(?:!doctype|!--|html|head|body|script|\?xml|[a-z])", re.I)
# What is in a pickle that is refused because of what it would import or call.
_PICKLED = (
    (b"string_to_param", "an embedding (textual inversion); put it into the embeddings folder"),
    (b"layer_structure", "a hypernetwork; put it into the hypernetworks folder"),
    (b"ultralytics", "a model that finds things in pictures (YOLO); put it into ADetailer's model folder"),
    (b"model.diffusion_model.", "a whole checkpoint; put it into the Stable-diffusion folder"),
    (b"first_stage_model.", "a whole checkpoint; put it into the Stable-diffusion folder"),
)


def check_bytes(path: Path, file: BinaryIO, safetensors: bool) -> None:
    """Refuses a file that is something else by its first bytes, and goes back to its beginning."""
    told = told_by_bytes(file.read(HEAD), os.fstat(file.fileno()).st_size, safetensors)
    if told:
        raise SciArtError(path.name, told)
    file.seek(0)


def told_by_bytes(head: bytes, size: int, safetensors: bool) -> str | None:
    """What a file is that is no file of tensors of its kind; None where its first bytes speak for that.

    head: its first `HEAD` bytes; size: of the whole; safetensors: whether its name says so, else it is to be torch's.
    """
    if not size:
        return f"an empty file (zero bytes): the download failed; {_AGAIN}"
    if not any(head):
        return f"nothing but zeros at its beginning: the download was cut short; {_AGAIN}"
    if head.startswith(LFS):
        return ("a Git LFS pointer, not the file that it stands for; get that with git lfs pull, or download it from "
                "the site's page of files")
    if any(head[:8]) and 0 not in head[:8]:
        told = _told_text(head)
        if told:
            return told
    told = next((told for magic, told in _MAGICS if head.startswith(magic)), None)
    if told and not (safetensors and is_header(head)):
        return told
    if safetensors and (head.startswith(b"PK\x03\x04") or (head[0] == 0x80 and head[1:2] in b"\x02\x03\x04\x05")):
        return None if is_header(head) else _told_archive(head)
    if not safetensors and is_header(head):
        return "a safetensors file under another name; give it the ending .safetensors"
    return None


def told_by_pickle(head: bytes) -> str | None:
    """What a file is whose pickle is refused."""
    return next((told for mark, told in _PICKLED if mark in head), None)


def is_header(head: bytes) -> bool:
    """Whether they may be the first bytes of a safetensors file: a length, of at most 16 MB, and a table."""
    return head[3:8] == bytes(5) and head[8:9] == b"{" and len(head) > 9


def _told_archive(head: bytes) -> str:
    return _TORCH if head[0] == 0x80 or b"data.pkl" in head else ("a ZIP archive; unpack it and put in what is inside")


def _told_text(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf").lstrip()
    if _HTML.match(start):
        return f"an HTML page: the download was not the file; {_AGAIN}, signed in where the site asks for it"
    if start[:1] in (b"{", b"[") and b"\0" not in head:
        return ("JSON, such as a site's message that the download failed, or a configuration; the LoRA is another "
                f"file: {_AGAIN}, signed in where the site asks for it")
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head) and len(start) > 8:
        return f"a text, not a file of tensors; {_AGAIN}"
    return None
