#!/usr/bin/env bash
# One picture in 16 bits, a dark ramp of levels 0 .. 16128 of 65535, written as grey and as RGB of equal
# channels. Pillow 11.3.0, numpy 2.2.6.
#
# Guess before running: Image.open(...).convert("RGB") gives the same 8 bits for both, 0 .. 63, or refuses one.
# Seen: the RGB file is scaled (level // 256). The grey file is clipped at 255, not scaled: of 64 levels 0 and
# 63 times 255 are left, without a warning. A 16-bit PGM is clipped alike, and its 12-bit sister (maxval 4095)
# too, after its levels were stretched to 65535: a picture nearly black becomes nearly white.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==11.3.0 numpy==2.2.6
cat > "$folder/show.py" <<'PY'
import struct
import sys
import zlib

import numpy as np
from PIL import Image

folder = sys.argv[1]
levels = np.arange(64, dtype=np.uint16) * 256  # one row of 64 pixels


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(file: str, colour_type: int, channels: int) -> None:
    row = b"\0" + np.repeat(levels, channels).astype(">u2").tobytes()
    head = struct.pack(">IIBBBBB", 64, 1, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    with open(file, "wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n" + parts)


png(f"{folder}/grey.png", 0, 1)
png(f"{folder}/rgb.png", 2, 3)
for name, white in (("grey16.pgm", 65535), ("grey12.pgm", 4095)):
    with open(f"{folder}/{name}", "wb") as out:
        out.write(f"P5 64 1 {white}\n".encode() + (levels // (65536 // (white + 1))).astype(">u2").tobytes())
for name in ("rgb.png", "grey.png", "grey16.pgm", "grey12.pgm"):
    stored = Image.open(f"{folder}/{name}")
    red = np.asarray(stored.convert("RGB"))[0, :, 0]
    print(name, stored.mode, red[:4].tolist(), "...", red[-2:].tolist(), len(set(red.tolist())), "levels")
PY
cat > "$folder/expected" <<'OUT'
rgb.png RGB [0, 1, 2, 3] ... [62, 63] 64 levels
grey.png I;16 [0, 255, 255, 255] ... [255, 255] 2 levels
grey16.pgm I [0, 255, 255, 255] ... [255, 255] 2 levels
grey12.pgm I [0, 255, 255, 255] ... [255, 255] 2 levels
OUT
"$folder/venv/bin/python" "$folder/show.py" "$folder" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
