"""Codes of countries (ISO 3166, three letters) and languages (ISO 639-3), from the ways in which data write them."""

import contextlib
from functools import lru_cache

ALIASES = {  # usual spellings that the ISO tables lack, in lower case
    "brunei": "BRN", "burma": "MMR", "camb.": "KHM", "cape verde": "CPV", "congo (kinshasa)": "COD",
    "east timor": "TLS", "great britain": "GBR", "indo.": "IDN", "ivory coast": "CIV", "korea (north)": "PRK",
    "korea (south)": "KOR", "lao pdr": "LAO", "laos": "LAO", "macau": "MAC", "macedonia": "MKD", "mala.": "MYS",
    "palestine": "PSE", "phil.": "PHL", "phillipines": "PHL", "russia": "RUS", "sing.": "SGP", "swaziland": "SWZ",
    "thai.": "THA", "the philippines": "PHL", "turkey": "TUR", "uae": "ARE", "uk": "GBR", "vie": "VNM", "viet.": "VNM",
}  # fmt: skip


@lru_cache(2**14)  # what data write has no end
def iso3(name: str) -> str | None:
    """The ISO3 code of a country given by code or name (a place in brackets may follow), or None."""
    import pycountry

    for spelling in (name.strip(), name.partition("(")[0].strip()):
        with contextlib.suppress(LookupError):
            return ALIASES.get(spelling.casefold()) or str(pycountry.countries.lookup(spelling).alpha_3)
    return None


LANGUAGES = {  # usual spellings, and codes that were changed, that the ISO table lacks, in lower case
    "cantonese": "yue", "farsi": "fas", "greek": "ell", "hokkien": "nan", "in": "ind", "iw": "heb", "ji": "yid",
    "malay": "zsm", "mandarin": "zho", "min nan": "nan", "mo": "ron", "myanmar": "mya", "punjabi": "pan",
}  # fmt: skip
ONE_CODE = {"cmn": "zho", "msa": "zsm", "tgl": "fil"}  # a language and the one that data do not tell from it


@lru_cache(2**14)  # what data write has no end
def iso639(name: str) -> str | None:
    """The ISO 639-3 code of a language given by code or name, or None.

    A script, country or style may follow with "_" or "-": ``zh_cn``, ``id_formal``, ``ind_Latn``; a code in brackets,
    too: ``Indonesian (ind)``. Where data do not tell two apart it is one code for both: Mandarin is Chinese, ``zho``;
    Malay is standard Malay, ``zsm``; Tagalog is Filipino, ``fil``.
    """
    outside, _, inside = name.partition("(")
    ways = (name, outside, inside.rstrip(") ")) if inside else (name,)
    return next(filter(None, map(_iso639, ways)), None)


def _iso639(name: str) -> str | None:
    import pycountry

    words = name.strip().casefold().replace("_", " ").replace("-", " ")
    code = words.partition(" ")[0]
    for spelling in (words, code) if len(code) <= 3 else (words,):
        with contextlib.suppress(LookupError):
            # Codes first: `en` is also the name of another language.
            coded = pycountry.languages.get(**{f"alpha_{len(spelling)}": spelling}) if len(spelling) in (2, 3) else None
            found = LANGUAGES.get(spelling) or str((coded or pycountry.languages.lookup(spelling)).alpha_3)
            return ONE_CODE.get(found, found)
    return None
