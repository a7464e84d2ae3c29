#!/usr/bin/env bash
# PyAV: what `frame.rotation` says of a video whose display matrix mirrors it.
#
# Expected (set down after a first trial, not before it): it is the turn alone, so a video that is only mirrored
#   has 0; turning each frame by it gives pictures that are upright, and at worst have left and right swapped.
# Versions: av 18.1.0 and the FFmpeg that it brings (8.1.2), numpy 2.4.6, Python 3.11.
# Behaviour: it is the angle of the matrix's first row, which tells nothing of a mirror. Left and right swapped gives
#   -180, the same as a half turn, so turning by it puts the picture upside down; up and down swapped gives 0, the
#   same as upright; the two mirrored quarter turns give what the plain ones give. All four come out wrong. The
#   matrix itself is in `frame.side_data`: apply that. The ffmpeg command (5.1) does, and shows what is meant here.
# Output seen: the text at the end; any other output ends this script with 1.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"

cat > rotation.py <<'PY'
import struct

import av
import numpy as np

WIDTH, HEIGHT = 64, 48
LETTERS = np.array([list("AB"), list("CD")])  # the stored picture's quarters, of grey 40, 90, 140, 190


def write(path):
    planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    planes[:HEIGHT] = np.kron(np.array([[40, 90], [140, 190]]), np.ones((HEIGHT // 2, WIDTH // 2)))
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=25, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def with_matrix(mp4, a, b, c, d):
    """The file with this matrix in its track header: (x, y) is shown at (a x + c y, b x + d y) + a shift."""
    shift = (max(-a, 0) * WIDTH + max(-c, 0) * HEIGHT, max(-b, 0) * WIDTH + max(-d, 0) * HEIGHT)
    values = [a << 16, b << 16, 0, c << 16, d << 16, 0, shift[0] << 16, shift[1] << 16, 1 << 30]
    at = mp4.index(b"tkhd") + 44
    return mp4[:at] + struct.pack(">9i", *values) + mp4[at + 36 :]


def shown(a, b, c, d):
    """The quarters where the matrix puts them."""
    picture = np.full((2, 2), " ")
    for y in (0, 1):
        for x in (0, 1):
            u, v = 2 * x - 1, 2 * y - 1
            picture[(b * u + d * v + 1) // 2, (a * u + c * v + 1) // 2] = LETTERS[y, x]
    return picture


def quarters(grey):
    height, width = grey.shape
    centres = grey[height // 4 :: height // 2, width // 4 :: width // 2]
    return np.array(list("ABCD"))[np.rint((centres - 40.0) / 50).astype(int)]


def text(picture):
    return "/".join("".join(row) for row in picture)


write("film.mp4")
with open("film.mp4", "rb") as file:
    stored = file.read()
for name, matrix in (
    ("upright", (1, 0, 0, 1)),
    ("up and down swapped", (1, 0, 0, -1)),
    ("half turn", (-1, 0, 0, -1)),
    ("left and right swapped", (-1, 0, 0, 1)),
    ("turned clockwise", (0, 1, -1, 0)),
    ("transposed", (0, 1, 1, 0)),
    ("turned counterclockwise", (0, -1, 1, 0)),
    ("transposed, half turn", (0, -1, -1, 0)),
):
    with open("film.mp4", "wb") as file:
        file.write(with_matrix(stored, *matrix))
    with av.open("film.mp4") as file:
        frame = next(file.decode(video=0))
    turned = np.rot90(frame.to_ndarray()[:HEIGHT], frame.rotation // 90)
    matrices = [bytes(each) for each in frame.side_data if each.type.name == "DISPLAYMATRIX"]
    told = [tuple(struct.unpack("=9i", each)[k] >> 16 for k in (0, 1, 3, 4)) for each in matrices]
    seen, meant = text(quarters(turned)), text(shown(*matrix))
    verdict = "right" if seen == meant else "WRONG"
    print(f"{name}: rotation {frame.rotation} gives {seen}, meant {meant}: {verdict}; side data {told}")
PY

python3.11 -m venv env
env/bin/pip install -q --disable-pip-version-check av==18.1.0 numpy==2.4.6
env/bin/python rotation.py > seen.txt
diff - seen.txt <<'EXPECTED'
upright: rotation 0 gives AB/CD, meant AB/CD: right; side data []
up and down swapped: rotation 0 gives AB/CD, meant CD/AB: WRONG; side data [(1, 0, 0, -1)]
half turn: rotation -180 gives DC/BA, meant DC/BA: right; side data [(-1, 0, 0, -1)]
left and right swapped: rotation -180 gives DC/BA, meant BA/DC: WRONG; side data [(-1, 0, 0, 1)]
turned clockwise: rotation -90 gives CA/DB, meant CA/DB: right; side data [(0, 1, -1, 0)]
transposed: rotation -90 gives CA/DB, meant AC/BD: WRONG; side data [(0, 1, 1, 0)]
turned counterclockwise: rotation 90 gives BD/AC, meant BD/AC: right; side data [(0, -1, 1, 0)]
transposed, half turn: rotation 90 gives BD/AC, meant DB/CA: WRONG; side data [(0, -1, -1, 0)]
EXPECTED
