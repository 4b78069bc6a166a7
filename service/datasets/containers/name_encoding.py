"""Names of archive entries as bytes of an encoding that nothing states.

A zip that does not say UTF-8 has names in the encoding of the machine that made it: UTF-8 all the
same, or an old one of its country. All names of an archive are read together, in every encoding
that is likely; the reading is taken that is text beyond doubt, and where there is none, the
archive is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.errors import DatasetError

_LEAST = 0.85
"""How much of a reading has to be usual characters."""
_MARGIN = 0.2
"""By how much it has to be more usual than the next."""
_SHOWN = 3
_FREQUENT_HANGUL = frozenset(
    "이다는을의에가고하지로한사도기어나인대자리서시부그들일정아해수라있만으게구여주보스제상원장전것조우과미를"
    "신비동면진마성선유와생오공치안관모무경소재용연중계적개물실국바드거회양내위방세문분각식학트체발간속"
    "단음당출원니영름화강러말반산려운민더었프업통크없노던행운않건파며터요르본남집차심결같입초호저테레"
    "데토글약청불배금돌날달열품포피디티카타코키살명네매박녀년울두외복직활흥론질족감복태램벌겨꽃"
    "늘새길별손눈빛색검흰노란초록파랑과딸포도소닭토끼쥐뱀곰늑여우표범말릴님걸법손뜻친람"
)
"""The syllables that most Korean words are of: bytes of Chinese text are as often Hangul, but of
these seldom."""


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    codec: str
    title: str
    how_usual: Callable[[str], Sequence[float]]
    """Of each character of a name that is not ASCII: 1 where it is usual, 0 where it is odd."""


def decode_names(raw: Sequence[bytes]) -> list[str]:
    """The names as text. Raises DatasetError where their encoding can't be told."""
    try:
        return [name.decode() for name in raw]
    except UnicodeDecodeError:
        pass
    scores = {encoding: _score(encoding, raw) for encoding in _ENCODINGS}
    if scores[_KOREAN] >= _LEAST:  # no accident; as Chinese, all Korean is usual
        scores[_CHINESE] /= 2
    scored = sorted(((score, encoding) for encoding, score in scores.items()), key=_by_score)
    (best, encoding), (second, _) = scored[:2]
    if best < _LEAST or best - second < _MARGIN:
        raise DatasetError(_doubt(raw, [other for score, other in scored if score > _LEAST / 2]))
    return [name.decode(encoding.codec) for name in raw]


def _score(encoding: _Encoding, raw: Sequence[bytes]) -> float:
    """The share of usual characters, -1 where the names can't be of this encoding."""
    found: list[float] = []
    for name in dict.fromkeys(raw):
        if name.isascii():
            continue
        try:
            found += encoding.how_usual(name.decode(encoding.codec))
        except UnicodeDecodeError:
            return -1.0
    return sum(found) / len(found) if found else -1.0


def _doubt(raw: Sequence[bytes], readings: Sequence[_Encoding]) -> str:
    odd = next(name for name in raw if not _is_utf8(name))
    shown = "; ".join(
        f"{odd.decode(reading.codec, errors='replace')!r} in {reading.title}"
        for reading in readings[:_SHOWN]
    )
    could = f", which could be {shown}" if shown else ""
    return (
        f"the archive's names are not in UTF-8, and their encoding can't be told: one is "
        f"{odd!r}{could}; send the folder itself or a tar of it, or make the zip with UTF-8 "
        f"names, as 7-Zip does with the parameter cu=on, or with names of plain letters"
    )


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _by_score(found: tuple[float, _Encoding]) -> float:
    return -found[0]


def _by_character(
    usual: Callable[[str, bytes], float], codec: str
) -> Callable[[str], Sequence[float]]:
    def how_usual(name: str) -> Sequence[float]:
        odd = [character for character in name if ord(character) > 127]
        return [usual(character, character.encode(codec)) for character in odd]

    return how_usual


def _japanese(character: str, encoded: bytes) -> float:
    is_kana = "\u3041" <= character <= "\u30fe"
    is_wide = "\uff01" <= character <= "\uff5e" or character in "\u3005\u3001\u3002\u3000"
    is_common_kanji = len(encoded) == 2 and b"\x88\x9f" <= encoded <= b"\x98\x72"
    return 1.0 if is_kana or is_wide or is_common_kanji else 0.0


def _chinese(_: str, encoded: bytes) -> float:
    if len(encoded) != 2 or encoded[1] < 0xA1:
        return 0.0
    if encoded[0] == 0xA3:  # wide forms of ASCII
        return 1.0
    return 1.0 if 0xB0 <= encoded[0] <= 0xD7 else 0.6 if 0xD8 <= encoded[0] <= 0xF7 else 0.0


def _taiwanese(name: str) -> Sequence[float]:
    """Half of its characters end in a byte that Chinese and Korean ones never end in, and the
    simple ones begin with a byte that theirs never do: without either it is hardly Big5."""
    encoded = [character.encode("cp950") for character in name if ord(character) > 127]
    is_own = any(len(pair) == 2 and (pair[1] < 0xA1 or pair[0] < 0xB0) for pair in encoded)
    return [
        (1.0 if is_own else 0.5) if 0xA4 <= pair[0] <= 0xC6 else 0.3 if len(pair) == 2 else 0.0
        for pair in encoded
    ]


def _korean(character: str, encoded: bytes) -> float:
    is_hangul = "\uac00" <= character <= "\ud7a3"
    if not is_hangul or len(encoded) != 2:
        return 0.0
    return 1.0 if character in _FREQUENT_HANGUL else 0.4 if encoded[1] >= 0xA1 else 0.0


def _in_words(is_letter: Callable[[str], bool]) -> Callable[[str], Sequence[float]]:
    """Of alphabets: letters are usual where their neighbours are, and capitals at a word's
    beginning, or among capitals."""

    def how_usual(name: str) -> Sequence[float]:
        found = []
        for at, character in enumerate(name):
            if ord(character) < 128:
                continue
            before = name[at - 1] if at else " "
            after = name[at + 1 : at + 2] or " "
            if after == "\\":  # more often the second half of a character than a separator
                found.append(0.5)
                continue
            neighbours = [other for other in (before, after) if other.isalpha()]
            fits = is_letter(character) and all(is_letter(other) for other in neighbours)
            if character.islower():
                fits = fits and not after.isupper()
            elif before.isalpha():
                fits = fits and before.isupper()
            found.append(1.0 if fits else 0.0)
        return found

    return how_usual


def _is_cyrillic(character: str) -> bool:
    return "\u0410" <= character <= "\u044f" or character in "\u0401\u0451"


def _western(name: str) -> Sequence[float]:
    """Letters with accents stand among plain ones, of which the German sharp s is one."""
    usual = _in_words(lambda character: character.isascii() or character in _ACCENTED)(name)
    alone = []
    for at, character in enumerate(name):
        if ord(character) > 127:
            beside = name[max(0, at - 1) : at] + name[at + 1 : at + 2]
            odd = [other for other in beside if ord(other) > 127 and other != _SHARP_S]
            alone.append(not odd or character == _SHARP_S)
    return [one if is_alone else 0.0 for one, is_alone in zip(usual, alone, strict=True)]


_SHARP_S = "\u00df"
_ACCENTED = frozenset(bytes([*range(0x80, 0x9B), *range(0xA0, 0xA6), 0xE1]).decode("cp437"))

_CHINESE = _Encoding(codec="gbk", title="GBK", how_usual=_by_character(_chinese, "gbk"))
_KOREAN = _Encoding(codec="cp949", title="EUC-KR", how_usual=_by_character(_korean, "cp949"))
_ENCODINGS = (
    _Encoding(codec="cp932", title="Shift-JIS", how_usual=_by_character(_japanese, "cp932")),
    _CHINESE,
    _Encoding(codec="cp950", title="Big5", how_usual=_taiwanese),
    _KOREAN,
    _Encoding(codec="cp866", title="code page 866", how_usual=_in_words(_is_cyrillic)),
    _Encoding(codec="cp437", title="code page 437", how_usual=_western),
)
