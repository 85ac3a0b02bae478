"""What lies in an image's place is named by its bytes, whatever the file is called."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import jpeg, random_image
from PIL import Image, features

from dermaflux.core.images import ImageError, formats, upright


def saved(form: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    random_image(3, 32, 32).convert(mode).save(out, form, **options)
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.jpg", b"x")
    return out.getvalue()


def media(*brands: bytes) -> bytes:
    """A file of the ISO base media format: size, `ftyp`, main brand, version, other brands."""
    box = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(box) + 4).to_bytes(4, "big") + box + bytes(200)


def refusal(content: bytes) -> ImageError:
    with pytest.raises(ImageError) as raised:
        upright(content)
    return raised.value


WRITTEN = {"GIF": "GIF", "TIFF": "TIFF", "BMP": "BMP", "WEBP": "WebP", "JPEG2000": "JPEG 2000",
           "AVIF": "AVIF", "ICO": "an icon", "PPM": "portable anymap", "EPS": "PostScript",
           "PDF": "PDF", "DDS": "DDS"}  # fmt: skip
MISSING = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}


@pytest.mark.parametrize("form", WRITTEN)
def test_formats_that_pillow_writes_are_named(form: str) -> None:
    if form in MISSING and not features.check(MISSING[form]):
        pytest.skip(f"Pillow is built without {form}")
    error = refusal(saved(form))
    assert error.rule == "format"
    assert WRITTEN[form] in error.reason
    assert ";" in error.reason


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (media(b"heic", b"mif1", b"heic"), "HEIC"),
        (media(b"mif1", b"mif1", b"heic"), "HEIC"),
        (media(b"mif1", b"mif1", b"avif"), "AVIF"),
        (media(b"mif1", b"mif1"), "HEIF"),
        (media(b"avis", b"msf1"), "AVIF"),
        (media(b"crx ", b"isom"), "CR3"),
        (media(b"isom", b"mp42"), "video"),
        (media(b"qt  "), "video"),
        (bytes(128) + b"DICM\x02\x00\x00\x00UL", "DICOM"),
        (b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "DICOM"),
        (b"\xff\x4f\xff\x51\x00\x2f" + bytes(50), "JPEG 2000"),
        (b"\xff\x0a\x00\x10" + bytes(50), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL"),
        (b"\xff\xd8\xff\xf7\x00\x0b" + bytes(50), "JPEG-LS"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(50), "CR2"),
        (b"MM\0*\0\0\0\x08" + bytes(50), "NEF"),
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"8BPS\0\x01" + bytes(50), "PSD"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "sound"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
        (zipped(), "zip archive"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "AppleDouble"),
    ],
)
def test_other_formats_are_named_with_what_to_do(content: bytes, name: str) -> None:
    error = refusal(content)
    assert error.rule == "format"
    assert name in error.reason
    assert ";" in error.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (bytes(5000), "zeros only"),
        (b"<!DOCTYPE html><title>404</title>", "web page"),
        (b"\xef\xbb\xbf\r\n <HTML><body>Sign in</body>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"../.git/annex/objects/Xx/3w/SHA256E-s1--0", "git annex get"),
        (b'{"error": "access denied"}', "access denied"),
        (b"404: Not Found", "404: Not Found"),
        (b"BMI of the patient: 24", "text"),
        (b"data:image/png;base64,iVBORw0KGgo", "base64"),
        (b"\x89PNG\n\x1a\n" + bytes(40), "transfer as text"),
        (bytes(range(40, 90)) + b"\0\xfe", "neither JPEG nor PNG"),
    ],
)
def test_a_failed_download_is_recognised(content: bytes, reason: str) -> None:
    error = refusal(content)
    assert error.rule == "damaged"
    assert reason in error.reason


def test_a_message_of_a_server_cannot_control_the_terminal() -> None:
    assert refusal("Fehler: \x1b[2J\u202e".encode()).reason.isprintable()
    assert refusal("é".encode() * 5000).reason.isprintable()  # cut within a letter


def test_several_pictures_in_a_file_are_the_first() -> None:
    frames = [random_image(seed, 48, 48) for seed in (1, 2, 3)]
    for form, options in (("MPO", {}), ("PNG", {})):
        out = io.BytesIO()
        frames[0].save(out, form, save_all=True, append_images=frames[1:], **options)
        alone = io.BytesIO()
        frames[0].save(alone, "JPEG" if form == "MPO" else form)
        decoded = upright(out.getvalue())
        assert decoded.format == ("JPEG" if form == "MPO" else "PNG")
        assert decoded.image.tobytes() == upright(alone.getvalue()).image.tobytes()
    # Pillow takes the index of the pictures for damaged here; the first one is not.
    broken = jpeg(random_image(4))
    index = b"MPF\0II*\0\x08\0\0\0\x01\0\x01\xb0\x04\0\xff\xff\xff\xff\0\0\0\0"
    segment = b"\xff\xe2" + (len(index) + 2).to_bytes(2, "big") + index
    assert upright(broken[:2] + segment + broken[2:]).image.tobytes() == (
        upright(broken).image.tobytes()
    )


STARTS = [b"", b"BM", b"RIFF", b"\0\0\0\x18ftyp", b"<", b"\2"]


@given(st.binary(max_size=200), st.sampled_from(STARTS))
def test_any_bytes_have_one_sentence(content: bytes, start: bytes) -> None:
    error = refusal(start + content)
    assert error.rule in ("damaged", "format")
    assert error.reason.isprintable()
    assert len(error.reason) < 400


def test_a_format_only_pillow_knows_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(Image, "open", lambda *_, **__: tried.append("opened"))
    for form in ("EPS", "TIFF", "GIF", "BMP"):
        refusal(saved(form))
    assert tried == []
    assert upright(saved("PNG")).format == "PNG"


@pytest.mark.parametrize(
    ("head", "image"),
    [
        (jpeg(random_image(1)), True),
        (b"\x89PNG\r\n\x1a\n", True),
        (media(b"msf1", b"msf1"), True),
        (media(b"crx ", b"isom"), True),
        (b"\xff\x0a\x00\x10", True),
        (b"FUJIFILMCCD-RAW 0201", True),
        (bytes(128) + b"DICM", True),
        (b"BM" + bytes(12) + b"\x28\0\0\0", True),
        (media(b"isom", b"mp42"), False),
        (b"RIFF\x24\0\0\0WAVEfmt ", False),
        (b"PK\x03\x04", False),
        (b"BMI,age\n22,41\n", False),
        (b"", False),
    ],
)
def test_a_file_without_suffix_is_an_image_by_its_first_bytes(head: bytes, image: bool) -> None:
    assert formats.is_image(head[:256]) == image
