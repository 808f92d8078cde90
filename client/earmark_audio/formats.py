"""The table of recording formats: how the first bytes tell them apart, and what decodes each."""

from __future__ import annotations

import codecs
import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earmark_audio import mpeg
from earmark_audio.wav import PADDING_LOOKAHEAD_BYTES, padding_bytes

if TYPE_CHECKING:
    from typing import BinaryIO, Literal

HEAD_BYTES = 4096
"""How many bytes from the beginning `identify` looks at, at most."""

ID3V1_BYTES = 128
"""Length of an ID3v1 tag, which begins with `TAG`."""

_ID3_HEADER_BYTES = 10
_MAX_TAGS = 100


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
    remedy: str | None = None
    """What to do with it, for `Decoder.NONE`."""

    def __str__(self) -> str:
        return self.container if self.codec is None else f"{self.codec} in {self.container}"

    @property
    def article(self) -> str:
        """The article before its name."""
        return "an" if re.match("[AEIO]|M4A|MP[23E]|MXF|FLV", str(self)) else "a"


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


@dataclass(frozen=True, slots=True)
class Readable:
    """A row of the table of formats: its name, the suffixes of such files, and what decodes them."""

    name: str
    suffixes: tuple[str, ...]
    decoder: Decoder


READABLE = (
    Readable("WAV", (".wav", ".wave"), Decoder.SNDFILE),
    Readable("RF64", (".rf64",), Decoder.SNDFILE),
    Readable("Wave64", (".w64",), Decoder.SNDFILE),
    Readable("AIFF", (".aif", ".aiff", ".aifc"), Decoder.SNDFILE),
    Readable("AU", (".au", ".snd"), Decoder.SNDFILE),
    Readable("CAF", (".caf",), Decoder.SNDFILE),
    Readable("FLAC", (".flac",), Decoder.SNDFILE),
    Readable("Ogg (Vorbis, Opus)", (".ogg", ".oga", ".opus"), Decoder.SNDFILE),
    Readable("MP3", (".mp3",), Decoder.SNDFILE),
    Readable("M4A and MP4", (".m4a", ".m4b", ".mp4", ".mov", ".3gp"), Decoder.FFMPEG),
    Readable("WebM and Matroska", (".webm", ".mka", ".mkv"), Decoder.FFMPEG),
    Readable("AAC", (".aac",), Decoder.FFMPEG),
    Readable("Ogg (FLAC, Speex)", (".oga", ".spx"), Decoder.FFMPEG),
    Readable("AMR", (".amr",), Decoder.FFMPEG),
    Readable("WMA", (".wma",), Decoder.FFMPEG),
    Readable("MP2", (".mp2",), Decoder.FFMPEG),
    Readable("AC-3", (".ac3",), Decoder.FFMPEG),
    Readable("WavPack", (".wv",), Decoder.FFMPEG),
    Readable("True Audio", (".tta",), Decoder.FFMPEG),
    Readable("Monkey's Audio", (".ape",), Decoder.FFMPEG),
    Readable("AVI", (".avi",), Decoder.FFMPEG),
    Readable("MPEG-TS", (".ts", ".mts", ".m2ts"), Decoder.FFMPEG),
    Readable("NIST SPHERE", (".sph",), Decoder.FFMPEG),
    Readable("Creative VOC", (".voc",), Decoder.FFMPEG),
    Readable("RealMedia", (".rm", ".ra"), Decoder.FFMPEG),
    Readable("DTS", (".dts",), Decoder.FFMPEG),
    Readable("SoX", (".sox",), Decoder.FFMPEG),
    Readable("NUT", (".nut",), Decoder.FFMPEG),
    Readable("Flash video", (".flv",), Decoder.FFMPEG),
)
"""Every format that is read. docs/recordings.md has the same table."""


def _names(decoder: Decoder) -> str:
    *names, last = (one.name for one in READABLE if one.decoder is decoder)
    return f"{', '.join(names)} and {last}"


def _suffixes(decoder: Decoder) -> tuple[str, ...]:
    return tuple(suffix for one in READABLE if one.decoder is decoder for suffix in one.suffixes)


READ_FORMATS = _names(Decoder.SNDFILE)
"""What is read without the extra `formats`."""

SUFFIXES = _suffixes(Decoder.SNDFILE)
"""File names that end in these hold a recording which is read without the extra `formats`."""

FFMPEG_SUFFIXES = tuple(suffix for suffix in _suffixes(Decoder.FFMPEG) if suffix not in SUFFIXES)
"""File names that end in these hold a recording which FFmpeg reads."""

FORMATS_HELP = f"{READ_FORMATS}; with ffmpeg or the extra `formats` also M4A, WebM, AAC and others"
"""The formats in one line, for the help of commands."""

CONVERT = "convert it, for example with `ffmpeg -i INPUT out.wav`"

_UNPACK = "unpack it, and give the recordings in it"
_NO_AUDIO = "give a recording"
_OTHER_DECODER = "convert it to WAV with a program that decodes this format; FFmpeg does not"
_IRCAM = (*(b"\x64\xa3%c\0" % machine for machine in range(1, 5)), b"\0\x02\xa3\x64")


_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"fLaC", FLAC),
    (b".snd", AU),
    (b"dns.", AU),
    (b"caff", CAF),
    (b"riff\x2e\x91\xcf\x11", W64),
    (b"\x1aE\xdf\xa3", Format("WebM or Matroska", Decoder.FFMPEG, demuxer="matroska")),
    (b"#!AMR", Format("AMR", Decoder.FFMPEG, demuxer="amr")),
    (b"0&\xb2u\x8ef\xcf\x11", Format("WMA (ASF)", Decoder.FFMPEG, demuxer="asf")),
    (b"wvpk", Format("WavPack", Decoder.FFMPEG, demuxer="wv")),
    (b"MAC ", Format("Monkey's Audio", Decoder.FFMPEG, demuxer="ape")),
    (b"TTA1", Format("True Audio", Decoder.FFMPEG, demuxer="tta")),
    (b"FLV\x01", Format("Flash video", Decoder.FFMPEG, demuxer="flv")),
    (b"ADIF", Format("AAC (ADIF)", Decoder.NONE)),
    (b"NIST_1A", Format("NIST SPHERE", Decoder.FFMPEG, demuxer="nistsphere")),
    (b"Creative Voice File", Format("Creative VOC", Decoder.FFMPEG, demuxer="voc")),
    (b".RMF", Format("RealMedia", Decoder.FFMPEG, demuxer="rm")),
    (b"\x7f\xfe\x80\x01", Format("DTS", Decoder.FFMPEG, demuxer="dts")),
    (b".SoX", Format("SoX", Decoder.FFMPEG, demuxer="sox")),
    (b"XoS.", Format("SoX", Decoder.FFMPEG, demuxer="sox")),
    (b"nut/multimedia", Format("NUT", Decoder.FFMPEG, demuxer="nut")),
    (b"DSD ", Format("DSD", Decoder.NONE)),
    (b"FRM8", Format("DSD (DSDIFF)", Decoder.NONE)),
    (b"\0\0\x01\xba", Format("MPEG program stream", Decoder.NONE)),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", Format("MXF", Decoder.NONE)),
    (b"MP+", Format("Musepack", Decoder.NONE)),
    (b"MPCK", Format("Musepack", Decoder.NONE)),
    (b"ajkg", Format("Shorten", Decoder.NONE)),
    (b"tBaK", Format("TAK", Decoder.NONE)),
    (b"TWIN97012000", Format("TwinVQ", Decoder.NONE)),
    (b".ra\xfd", Format("RealAudio", Decoder.NONE)),
    (b"\x02dss", Format("DSS dictation", Decoder.NONE)),
    (b"\x03dss", Format("DSS dictation", Decoder.NONE)),
    (b"\x03ds2", Format("DSS dictation", Decoder.NONE, remedy=_OTHER_DECODER)),
    (b"OFR ", Format("OptimFROG recording", Decoder.NONE, remedy=_OTHER_DECODER)),
    (b"#!SILK", Format("SILK recording", Decoder.NONE, remedy=_OTHER_DECODER)),
    (b"\x02#!SILK", Format("SILK recording", Decoder.NONE, remedy=_OTHER_DECODER)),
    *((magic, Format("IRCAM", Decoder.NONE)) for magic in _IRCAM),
    (b"MThd", Format("MIDI file", Decoder.NONE, remedy="it has notes, but no audio")),
    (b"PK\x03\x04", Format("ZIP archive", Decoder.NONE, remedy=_UNPACK)),
    (b"\x1f\x8b\x08", Format("gzip archive", Decoder.NONE, remedy=_UNPACK)),
    (b"BZh", Format("bzip2 archive", Decoder.NONE, remedy=_UNPACK)),
    (b"\xfd7zXZ", Format("xz archive", Decoder.NONE, remedy=_UNPACK)),
    (b"7z\xbc\xaf", Format("7-Zip archive", Decoder.NONE, remedy=_UNPACK)),
    (b"\x28\xb5\x2f\xfd", Format("Zstandard archive", Decoder.NONE, remedy=_UNPACK)),
    (b"Rar!", Format("RAR archive", Decoder.NONE, remedy=_UNPACK)),
    (b"%PDF", Format("PDF document", Decoder.NONE, remedy=_NO_AUDIO)),
    (b"\x89PNG", Format("PNG image", Decoder.NONE, remedy=_NO_AUDIO)),
    (b"\xff\xd8\xff", Format("JPEG image", Decoder.NONE, remedy=_NO_AUDIO)),
    (b"GIF8", Format("GIF image", Decoder.NONE, remedy=_NO_AUDIO)),
    (b"\x7fELF", Format("program", Decoder.NONE, remedy=_NO_AUDIO)),
    (b"\x93NUMPY", Format("NumPy array", Decoder.NONE, remedy="write its samples to a WAV file")),
    (
        b"version https://git-lfs",
        Format("Git LFS pointer", Decoder.NONE, remedy="fetch it with `git lfs pull`"),
    ),
)

_OGG_AUDIO: tuple[tuple[bytes, Format], ...] = (
    (b"OpusHead", OGG_OPUS),
    (b"\x01vorbis", OGG_VORBIS),
    (b"\x7fFLAC", Format("Ogg", Decoder.FFMPEG, "FLAC", "ogg")),
    (b"Speex   ", Format("Ogg", Decoder.FFMPEG, "Speex", "ogg")),
)
_OGG_CODECS = (
    *_OGG_AUDIO,
    (b"\x80theora", Format("Ogg", Decoder.FFMPEG, "Theora video", "ogg")),
    (b"fishead", Format("Ogg", Decoder.FFMPEG, "Skeleton", "ogg")),
)

# What libsndfile does not decode in WAV, by the format tag (RFC 2361, and FFmpeg's table).
_WAV_CODECS = {
    0x10: "OKI ADPCM",
    0x20: "Yamaha ADPCM",
    0x22: "TrueSpeech",
    0x42: "G.723.1",
    0x45: "G.726",
    0x50: "MP2",
    0x64: "G.726",
    0x65: "G.722",
    0x83: "G.729",
    0xFF: "AAC",
    0x160: "WMA",
    0x161: "WMA",
    0x162: "WMA",
    0x163: "WMA",
    0x200: "Creative ADPCM",
    0x270: "ATRAC3",
    0x28F: "G.722",
    0x566F: "Vorbis",
    0x1600: "AAC",
    0x1602: "AAC",
    0x2000: "AC-3",
    0x2001: "DTS",
    0x5346: "Flash ADPCM",
    0x674F: "Vorbis",
    0x6750: "Vorbis",
    0x6751: "Vorbis",
    0x676F: "Vorbis",
    0x6770: "Vorbis",
    0x6771: "Vorbis",
    0x704F: "Opus",
    0xA106: "AAC",
    0xA109: "Speex",
    0xF1AC: "FLAC",
}
# What libsndfile does not decode in CAF, by the format ID (Apple, CAF specification 1.0, and FFmpeg's table).
_CAF_CODECS = {
    b".mp1": "MP1",
    b".mp2": "MP2",
    b".mp3": "MP3",
    b"MAC3": "MACE",
    b"MAC6": "MACE",
    b"QDM2": "QDesign",
    b"QDMC": "QDesign",
    b"Qclp": "QCELP",
    b"aac ": "AAC",
    b"aace": "AAC",
    b"aach": "AAC",
    b"aacl": "AAC",
    b"aacp": "AAC",
    b"ac-3": "AC-3",
    b"ec-3": "E-AC-3",
    b"flac": "FLAC",
    b"ilbc": "iLBC",
    b"ima4": "IMA ADPCM",
    b"opus": "Opus",
    b"samr": "AMR",
    b"sawb": "AMR",
}
_QUICKTIME_COOKIE = re.compile(rb"kuki.{12}frmaalac", re.DOTALL)
"""The older of the two forms of ALAC's configuration, which libsndfile does not read."""
_EXTENSIBLE = 0xFFFE
"""The tag of a `fmt ` chunk whose tag proper is further behind."""

_TRUEHD = (b"\xf8\x72\x6f\xba", b"\xf8\x72\x6f\xbb")
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")

_AAC = Format("AAC", Decoder.FFMPEG, demuxer="aac")
MP2 = Format("MP2", Decoder.FFMPEG, demuxer="mp3")
_AC3 = Format("AC-3", Decoder.FFMPEG, demuxer="ac3")
_MPEG_TS = Format("MPEG-TS", Decoder.FFMPEG, demuxer="mpegts")
_TS_PACKETS = ((0, 188), (4, 192))
"""Where the first packet begins, and how far apart they are: in broadcasts, and in files of camcorders."""
_PROGRAM = Format("program", Decoder.NONE, remedy=_NO_AUDIO)
_RIFF = Format("RIFF file", Decoder.NONE)
_TEXT = Format("text file", Decoder.NONE, remedy=_NO_AUDIO)
_BASE64 = Format("base64 text", Decoder.NONE, remedy="decode it, for example with `base64 -d`")

_MIN_TEXT_CHARACTERS = 4
"""How many different characters a text has at least. A-law silence is one letter, repeated."""


def identify(head: bytes) -> Format | None:
    """Return the format of a file that begins with `head` (up to HEAD_BYTES of it); None if it is unknown."""
    return identify_binary(head) or _text(head)


def identify_file(file: BinaryIO) -> tuple[Format | None, int]:
    """Return the format of a file that can seek, None if it is unknown, and where in the file it begins.

    It begins after the ID3v2 tags, which may be longer than HEAD_BYTES.
    """
    start = 0
    file.seek(0)
    head = file.read(HEAD_BYTES)
    for _ in range(_MAX_TAGS):
        if not (tag := id3_bytes(head)):
            break
        start += tag
        file.seek(start)
        head = file.read(HEAD_BYTES)
    return (identify_binary(head) or MP3, start) if start else (identify(head), 0)


def identify_binary(head: bytes) -> Format | None:
    """Return the format of a file that begins with `head`, as `identify`; None also if it is a text.

    Quiet samples of 8 bits, such as G.711, may be the characters of a text.
    """
    start = 0
    while tag := id3_bytes(head[start : start + _ID3_HEADER_BYTES]):
        start += tag
    # The tags may be longer than the head: nearly all files with an ID3 tag are MP3.
    return _after_tags(head[start:]) or (MP3 if start else None)


def _after_tags(head: bytes) -> Format | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _riff(head)
    if head[:4] == b"FORM":
        return AIFF if head[8:12] in (b"AIFF", b"AIFC") else Format("IFF file", Decoder.NONE)
    if head[:4] == b"OggS":
        return _ogg(head)
    if head[4:8] in _MP4_BOXES:
        return Format("M4A or MP4", Decoder.FFMPEG, demuxer="mov")
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return _caf(head) if found is CAF else found
    return _frames(head)


def id3_bytes(head: bytes) -> int:
    """Return the bytes of the ID3v2 tag at the beginning of `head` (ID3v2.4.0, section 3.1); 0: none."""
    if head[:3] != b"ID3" or len(head) < _ID3_HEADER_BYTES:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    has_footer = bool(head[5] & 0x10)
    return _ID3_HEADER_BYTES + size + (_ID3_HEADER_BYTES if has_footer else 0)


def _riff(head: bytes) -> Format | None:
    if head[8:12] != b"WAVE":
        if head[8:12] == b"AVI ":
            return Format("AVI", Decoder.FFMPEG, demuxer="avi")
        is_image = head[8:12] == b"WEBP"
        return Format("WebP image", Decoder.NONE, remedy=_NO_AUDIO) if is_image else _RIFF
    codec = _wav_codec(head)
    if codec is not None:
        return Format("WAV", Decoder.FFMPEG, codec, "wav")
    return WAV if head[:4] in (b"RIFF", b"RIFX") else RF64


def _wav_codec(head: bytes) -> str | None:
    """Return the codec in a WAV file, if it is one that libsndfile does not decode."""
    order: Literal["little", "big"] = "big" if head[:4] == b"RIFX" else "little"
    position = 12
    while position + 10 <= len(head):
        length = int.from_bytes(head[position + 4 : position + 8], order)
        if head[position : position + 4] == b"fmt ":
            body = head[position + 8 : position + 8 + length]
            tag = int.from_bytes(body[:2], order)
            return _WAV_CODECS.get(int.from_bytes(body[24:26], order) if tag == _EXTENSIBLE else tag)
        position += 8 + length
        position += padding_bytes(length, head[position : position + PADDING_LOOKAHEAD_BYTES])
    return None


def _caf(head: bytes) -> Format:
    codec = _CAF_CODECS.get(head[28:32])  # of the first chunk, `desc`
    if codec is None and head[28:32] == b"alac" and _QUICKTIME_COOKIE.search(head):
        codec = "ALAC"
    return CAF if codec is None else Format("CAF", Decoder.FFMPEG, codec, "caf")


def _ogg(head: bytes) -> Format:
    body = 27 + (head[26] if len(head) > 26 else 0)
    for magic, found in _OGG_CODECS:
        if head[body:].startswith(magic):
            return found
    return Format("Ogg", Decoder.FFMPEG, "unknown codec", "ogg")


def is_ogg_audio(head: bytes) -> bool:
    """Return whether a logical stream of Ogg whose first packet begins with `head` is audio."""
    return head.startswith(tuple(magic for magic, _ in _OGG_AUDIO))


def _frames(head: bytes) -> Format | None:
    """Return the format of a file without a header, whose frames begin with the same bits."""
    if head[:2] == b"\x0bw" and (head.count(b"\x0bw") > 1 or len(head) < HEAD_BYTES):
        return _AC3
    if ts_packet_bytes(head):
        return _MPEG_TS
    begin = mpeg.find_frames(head)
    if begin is not None:
        return MP3 if mpeg.is_layer_3(head[begin:]) else MP2
    if mpeg.begins_with_adts(head):
        return _AAC
    if head[4:8] in _TRUEHD:
        return Format("TrueHD", Decoder.NONE)
    return _PROGRAM if head[:2] == b"MZ" and b"PE\0\0" in head else None


def ts_packet_bytes(head: bytes) -> int:
    """Return how far apart the packets of a transport stream are that begins with `head`; 0 if it is none."""
    for at, length in _TS_PACKETS:
        if len(head) > at + 3 * length and set(head[at::length]) == {0x47}:
            return length
    return 0


def _text(head: bytes) -> Format | None:
    text = _decoded(head)
    if len(set(text)) < _MIN_TEXT_CHARACTERS or any(
        not (character.isprintable() or character in "\t\r\n\f") for character in text
    ):
        return None
    return _BASE64 if re.fullmatch(r"(data:[^,]{1,99},)?[A-Za-z0-9+/\r\n]{64,}=*\s*", text) else _TEXT


# Python reads the code of an encoding when it is first used: too late for a server without free descriptors.
for _encoding in ("utf-16", "utf-8-sig"):
    codecs.lookup(_encoding)


def _decoded(head: bytes) -> str:
    """Return the text that begins with `head`; empty if it is none."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return head[: len(head) // 2 * 2].decode("utf-16", errors="replace")
    try:
        return head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_cut = error.start >= len(head) - 4  # within the last character
        return head[: error.start].decode("utf-8-sig") if is_cut else ""
