"""Pictures for the template browser: `make thumbnails` runs the bundled workflows on the mini models and keeps what they save as
workflows/NAME.jpg. `make thumbnails ARGS="01 20"` does so only with the workflows whose names begin so.

What is transparent lies on a checkerboard; several pictures of one workflow, four at most, are in the order of its Save Image nodes.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageOps

from dev import bundled, comfyui, mini_workflows
from dev.server import ComfyServer, ServerError, WorkflowError, staged

SIDE, GAP, CELL = 400, 8, 20
LIGHT, DARK, FELT = (236, 236, 236), (198, 198, 198), (32, 34, 40)
# How many pictures -> the side of each and its left upper corner, as shares of the square; later ones lie on top.
CARDS = {
    1: (1.0, ((0, 0),)),
    2: (0.62, ((0, 0), (0.38, 0.38))),
    3: (0.5, ((0, 0), (0.25, 0.25), (0.5, 0.5))),
    4: (0.5, ((0, 0), (0.5, 0), (0, 0.5), (0.5, 0.5))),
}
MOST_BYTES = 40_000
ROUNDING = 2  # of 255
QUALITIES = range(88, 20, -6)


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes workflows/NAME.jpg from what the workflows save.")
    parser.add_argument("beginnings", nargs="*", metavar="NAME", help="how the names of workflows begin; all of them if none is named")
    arguments = parser.parse_args()
    if not (names := [name for name in bundled.names() if name.startswith(tuple(arguments.beginnings or [""]))]):
        parser.error(f"there is no such workflow; there are {', '.join(bundled.names())}")
    try:
        return run(names)
    except (comfyui.SetupError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1


def run(names: Sequence[str]) -> int:
    """Runs the workflows one after another; 1 if one of them fails, after all the others."""
    failed = 0
    with staged("thumbnails-", stand_ins=True) as base, ComfyServer(base) as server:
        mini_workflows.draw_inputs(base / "input")
        for name in names:
            try:
                pictures = results(server, name)
            except (WorkflowError, TimeoutError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed = 1
                continue
            path = bundled.FOLDER / f"{name}.jpg"
            path.write_bytes(small_jpeg(arranged(pictures)))
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {len(pictures)} of {name}", flush=True)
    return failed


def results(server: ComfyServer, name: str) -> list[Image.Image]:
    """The first few different pictures that a workflow saves, in the order of its nodes."""
    prompt = mini_workflows.on_mini(name)
    different: list[Image.Image] = []
    for path in server.outputs(server.queue(prompt)):
        # The flat picture of a PSD lies on white under its alpha.
        if path.parent.name == "output" and path.suffix != ".psd":
            picture = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
            if not any(is_same(picture, other) for other in different):
                different.append(picture)
    return different[: max(CARDS)]


def is_same(one: Image.Image, other: Image.Image) -> bool:
    """Up to how pixels are rounded."""
    return one.size == other.size and max(ImageChops.difference(one, other).tobytes()) <= ROUNDING


# --- pictures ---------------------------------------------------------------------------------------------------------------------------


def arranged(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures as one opaque square: one alone, up to three as cards along the diagonal, four as a grid."""
    square = Image.new("RGB", (SIDE, SIDE), FELT)
    share, corners = CARDS[len(pictures)]
    side = round(SIDE * share) - (GAP if len(pictures) > 1 else 0)
    for picture, (x, y) in zip(pictures, corners, strict=True):
        card = ImageOps.fit(picture.convert("RGBA"), (side, side), Image.Resampling.LANCZOS)
        ground = checkerboard(side, side)
        ground.paste(card, mask=card.getchannel("A"))
        left, top = (round(share * SIDE) for share in (x, y))
        square.paste(FELT, (left, top, left + side + GAP, top + side + GAP))
        square.paste(ground, (left, top) if len(pictures) == 1 else (left + GAP // 2, top + GAP // 2))
    return square


def checkerboard(width: int, height: int) -> Image.Image:
    board = Image.new("RGB", (width, height), LIGHT)
    draw = ImageDraw.Draw(board)
    for top in range(0, height, CELL):
        for left in range(top // CELL % 2 * CELL, width, 2 * CELL):
            draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=DARK)
    return board


def small_jpeg(picture: Image.Image) -> bytes:
    """The best JPEG of at most MOST_BYTES, or the smallest there is."""
    content = b""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        content = buffer.getvalue()
        if len(content) <= MOST_BYTES:
            break
    return content


if __name__ == "__main__":
    sys.exit(main())
