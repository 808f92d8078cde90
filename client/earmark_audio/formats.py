"""The table of recording formats: how the first bytes tell them apart, and what decodes each."""

from __future__ import annotations

import enum
from dataclasses import dataclass

HEAD_BYTES = 4096
"""How many bytes from the beginning `identify` looks at, at most."""

_ID3_HEADER_BYTES = 10


class Decoder(enum.Enum):
    """What decodes a format."""

    SNDFILE = "libsndfile"
    """Always installed."""
    FFMPEG = "FFmpeg"
    """The extra `formats` (PyAV), or the program `ffmpeg` where programs may be started."""
    NONE = "none"
    """Nothing: not a recording, or one that nothing here decodes."""


@dataclass(frozen=True, slots=True)
class Format:
    """A container, and the codec inside where the first bytes tell it."""

    container: str
    """Its name as people know it, such as `WAV`, `M4A` or `ZIP archive`."""
    decoder: Decoder
    codec: str | None = None
    demuxer: str | None = None
    """FFmpeg's name for the container, for `Decoder.FFMPEG`. It is always stated: FFmpeg must not guess."""

    def __str__(self) -> str:
        return self.container if self.codec is None else f"{self.codec} in {self.container}"


WAV = Format("WAV", Decoder.SNDFILE)
RF64 = Format("RF64", Decoder.SNDFILE)
W64 = Format("Wave64", Decoder.SNDFILE)
AIFF = Format("AIFF", Decoder.SNDFILE)
AU = Format("AU", Decoder.SNDFILE)
CAF = Format("CAF", Decoder.SNDFILE)
FLAC = Format("FLAC", Decoder.SNDFILE)
MP3 = Format("MP3", Decoder.SNDFILE)
OGG_VORBIS = Format("Ogg", Decoder.SNDFILE, "Vorbis")
OGG_OPUS = Format("Ogg", Decoder.SNDFILE, "Opus")

READ_FORMATS = "WAV, RF64, Wave64, AIFF, AU, CAF, FLAC, Ogg (Vorbis, Opus) and MP3"
"""What is read without the extra `formats`."""

SUFFIXES = tuple(".wav .rf64 .w64 .aif .aiff .aifc .au .snd .caf .flac .ogg .oga .opus .mp3".split())  # noqa: SIM905
"""File names that end in these hold a recording which is read without the extra `formats`."""

FFMPEG_SUFFIXES = tuple(
    ".m4a .mp4 .aac .webm .mka .mkv .mov .wma .amr .3gp .spx .wv .ape .tta .ac3 .mp2 .ra".split()  # noqa: SIM905
)
"""File names that end in these hold a recording which FFmpeg reads."""

CONVERT = "convert it, for example with `ffmpeg -i INPUT out.wav`"

_W64_GUID = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"

_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"fLaC", FLAC),
    (b".snd", AU),
    (b"dns.", AU),
    (b"caff", CAF),
    (_W64_GUID, W64),
    (b"\x1aE\xdf\xa3", Format("WebM or Matroska", Decoder.FFMPEG, demuxer="matroska")),
    (b"#!AMR", Format("AMR", Decoder.FFMPEG, demuxer="amr")),
    (b"0&\xb2u\x8ef\xcf\x11", Format("WMA (ASF)", Decoder.FFMPEG, demuxer="asf")),
    (b"wvpk", Format("WavPack", Decoder.FFMPEG, demuxer="wv")),
    (b"MAC ", Format("Monkey's Audio", Decoder.FFMPEG, demuxer="ape")),
    (b"TTA1", Format("True Audio", Decoder.FFMPEG, demuxer="tta")),
    (b"FLV\x01", Format("Flash video", Decoder.FFMPEG, demuxer="flv")),
    (b"\x0bw", Format("AC-3", Decoder.FFMPEG, demuxer="ac3")),
    (b"ADIF", Format("AAC (ADIF)", Decoder.NONE)),
    (b"NIST_1A", Format("NIST SPHERE", Decoder.NONE)),
    (b"Creative Voice File", Format("Creative VOC", Decoder.NONE)),
    (b".RMF", Format("RealMedia", Decoder.NONE)),
    (b"DSD ", Format("DSD", Decoder.NONE)),
    (b"MThd", Format("MIDI file", Decoder.NONE)),
    (b"PK\x03\x04", Format("ZIP archive", Decoder.NONE)),
    (b"\x1f\x8b", Format("gzip archive", Decoder.NONE)),
    (b"BZh", Format("bzip2 archive", Decoder.NONE)),
    (b"\xfd7zXZ", Format("xz archive", Decoder.NONE)),
    (b"7z\xbc\xaf", Format("7-Zip archive", Decoder.NONE)),
    (b"%PDF", Format("PDF document", Decoder.NONE)),
    (b"\x89PNG", Format("PNG image", Decoder.NONE)),
    (b"\xff\xd8\xff", Format("JPEG image", Decoder.NONE)),
    (b"GIF8", Format("GIF image", Decoder.NONE)),
    (b"\x7fELF", Format("program", Decoder.NONE)),
    (b"MZ", Format("program", Decoder.NONE)),
    (b"version https://git-lfs", Format("Git LFS pointer", Decoder.NONE)),
)

_OGG_CODECS: tuple[tuple[bytes, Format], ...] = (
    (b"OpusHead", OGG_OPUS),
    (b"\x01vorbis", OGG_VORBIS),
    (b"\x7fFLAC", Format("Ogg", Decoder.FFMPEG, "FLAC", "ogg")),
    (b"Speex   ", Format("Ogg", Decoder.FFMPEG, "Speex", "ogg")),
    (b"\x80theora", Format("Ogg", Decoder.FFMPEG, "Theora video", "ogg")),
    (b"fishead", Format("Ogg", Decoder.FFMPEG, "Skeleton", "ogg")),
)

_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")

_MPEG_LAYERS = {1: "MP3", 2: "MP2", 3: "MP1"}


def identify(head: bytes) -> Format | None:  # noqa: PLR0911 - one answer for each kind of beginning
    """Return the format of a file that begins with `head` (up to HEAD_BYTES of it); None if it is unknown."""
    if head[:3] == b"ID3" and len(head) >= _ID3_HEADER_BYTES:
        return _after_id3(head)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _riff(head)
    if head[:4] == b"FORM":
        return AIFF if head[8:12] in (b"AIFF", b"AIFC") else Format("IFF", Decoder.NONE)
    if head[:4] == b"OggS":
        return _ogg(head)
    if head[4:8] in _MP4_BOXES:
        return Format("M4A or MP4", Decoder.FFMPEG, demuxer="mov")
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    if (mpeg := _mpeg(head)) is not None:
        return mpeg
    return Format("text file", Decoder.NONE) if _is_text(head) else None


def id3_bytes(head: bytes) -> int:
    """Return the bytes of the ID3v2 tag at the beginning of `head` (ID3v2.4.0, section 3.1); 0: none."""
    if head[:3] != b"ID3" or len(head) < _ID3_HEADER_BYTES:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    has_footer = bool(head[5] & 0x10)
    return _ID3_HEADER_BYTES + size + (_ID3_HEADER_BYTES if has_footer else 0)


def is_mpeg_header(head: bytes) -> bool:
    """Return whether `head` begins like an MPEG audio frame of layer I to III (ISO/IEC 11172-3, 2.4.2.3)."""
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] >> 3 & 3 != 1
        and head[1] >> 1 & 3 != 0
        and head[2] >> 4 not in (0, 15)
        and head[2] >> 2 & 3 != 3
    )


def _after_id3(head: bytes) -> Format | None:
    rest = head[id3_bytes(head) :]
    if rest[:4] == b"fLaC":
        return FLAC
    if _is_adts(rest):
        return Format("AAC", Decoder.FFMPEG, demuxer="aac")
    # The tag may be longer than the head: of what has an ID3 tag, nearly all is MP3.
    return MP3


def _riff(head: bytes) -> Format | None:
    if head[8:12] != b"WAVE":
        kind = {b"AVI ": "AVI video", b"WEBP": "WebP image"}.get(head[8:12], "RIFF file")
        return (
            Format(kind, Decoder.FFMPEG, demuxer="avi") if kind == "AVI video" else Format(kind, Decoder.NONE)
        )
    return WAV if head[:4] in (b"RIFF", b"RIFX") else RF64


def _ogg(head: bytes) -> Format:
    body = 27 + (head[26] if len(head) > 26 else 0)
    for magic, found in _OGG_CODECS:
        if head[body:].startswith(magic):
            return found
    return Format("Ogg", Decoder.FFMPEG, "an unknown codec", "ogg")


def _is_adts(head: bytes) -> bool:
    return len(head) >= 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def _mpeg(head: bytes) -> Format | None:
    if _is_adts(head):
        return Format("AAC", Decoder.FFMPEG, demuxer="aac")
    if not is_mpeg_header(head):
        return None
    name = _MPEG_LAYERS[head[1] >> 1 & 3]
    return MP3 if name == "MP3" else Format(name, Decoder.FFMPEG, demuxer="mp3")


def _is_text(head: bytes) -> bool:
    if not head:
        return False
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)
