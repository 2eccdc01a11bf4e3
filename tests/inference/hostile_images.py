"""Image files that nobody should have to read, beside a few sound ones."""

import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def png(width: int, height: int, data: bytes, *, n_text: int = 0) -> bytes:
    """A PNG that claims a size, whatever its data hold; with `n_text` compressed texts of a megabyte each."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    texts = chunk(b"zTXt", b"note\0\0" + zlib.compress(b"\0" * 2**20)) * n_text
    return b"\x89PNG\r\n\x1a\n" + header + texts + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def save_images(folder: Path) -> list[str]:
    """Save the good and the bad images; gives their names, of which many rows share each."""
    folder.mkdir(parents=True, exist_ok=True)
    good = Image.new("RGB", (112, 112), (200, 40, 90))
    ImageDraw.Draw(good).ellipse((20, 20, 90, 90), fill=(250, 240, 10))
    good.save(folder / "good.png")
    good.save(folder / "good.jpg")
    jpeg, whole_png = (folder / "good.jpg").read_bytes(), (folder / "good.png").read_bytes()
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    exif[0x0112] = 6
    good.save(folder / "exif_huge.jpg", exif=exif)
    frames = [good, Image.new("RGB", (112, 112), "blue")]
    for name in ("animated.webp", "animated.gif", "animated.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(folder / "16_bit.png")
    Image.new("L", (64, 64), 90).save(folder / "grey.tif")
    Image.new("RGB", (1, 1)).save(folder / "one_pixel.png")
    Image.new("RGB", (2800, 14)).save(folder / "ratio_200.png")
    Image.new("RGB", (2815, 14)).save(folder / "ratio_201.png")
    Image.new("1", (8000, 8000)).save(folder / "64_megapixels.png")
    good.save(folder / "post.eps")
    contents = {
        "zero.png": b"",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": whole_png[: len(whole_png) // 2],
        "header.jpg": jpeg[:20],
        "bomb.png": png(65_000, 65_000, zlib.compress(bytes(1000))),
        "bomb_edge.png": png(2**31 - 1, 1, b""),
        "no_pixels.png": png(0, 0, b""),
        "texts.png": png(8, 8, zlib.compress(bytes(8 * 25)), n_text=80),
        "bomb.gif": b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b"\x2c"
        + bytes(8)
        + b"\0\x02\x00;",
        "bomb.bmp": b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "bomb.tif": tiff(60_000, 60_000),
        "vector.svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "paper.jpg": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n",
        "text.png": b"not an image\n" * 100,
        "script.gif": b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)",
        "riff.webp": b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(30),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    noise = random.Random(0)
    for number in range(40):
        damaged = bytearray(noise.choice((jpeg, whole_png)))
        for _ in range(5):
            damaged[noise.randrange(len(damaged))] = noise.randrange(256)
        (folder / f"damaged_{number}.png").write_bytes(damaged)
    (folder / "folder.png").mkdir(exist_ok=True)
    for name, target in {
        "loop.png": "loop.png",
        "dangling.png": "nowhere",
        "device.png": "/dev/zero",
    }.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    if not (folder / "pipe.png").exists():
        os.mkfifo(folder / "pipe.png")
    return sorted(path.name for path in folder.iterdir())


def tiff(width: int, height: int) -> bytes:
    """A TIFF that claims a size and has no pixels."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (279, 4, 1),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)
