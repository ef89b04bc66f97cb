"""Languages as translators and checks know them: codes, scripts, names, and which are hardly told apart."""

from functools import cache

ENGLISH = "eng"
# fmt: off
# The codes of NLLB-200 (FLORES-200), by script. Of a language in several scripts the one that is written here.
_BY_SCRIPT = {
    "Latn": """
        ace afr aka als ast ayr azj bam ban bem bjn bos bug cat ceb ces cjk crh cym dan deu dik dyu eng epo est
        eus ewe fao fij fin fon fra fur fuv gaz gla gle glg grn hat hau hrv hun ibo ilo ind isl ita jav kab kac
        kam kbp kea kik kin kmb kmr knc kon lij lim lin lit lmo ltg ltz lua lug luo lus lvs min mlt mos mri nld
        nno nob nso nus nya oci pag pap plt pol por quy ron run sag scn slk slv smo sna som sot spa srd ssw sun
        swe swh szl taq tgl tpi tsn tso tuk tum tur twi umb uzn vec vie war wol xho yor zsm zul
    """,
    "Arab": "acm acq aeb apc arb ars ary arz azb ckb kas pbt pes prs snd uig urd", "Armn": "hye",
    "Beng": "asm ben mni", "Cyrl": "bak bel bul kaz khk kir mkd rus srp tat tgk ukr",
    "Deva": "awa bho hin hne mag mai mar npi san", "Ethi": "amh tir", "Geor": "kat", "Grek": "ell", "Gujr": "guj",
    "Guru": "pan", "Hang": "kor", "Hans": "zho", "Hant": "yue", "Hebr": "heb ydd", "Jpan": "jpn", "Khmr": "khm",
    "Knda": "kan", "Laoo": "lao", "Mlym": "mal", "Mymr": "mya shn", "Orya": "ory", "Sinh": "sin", "Taml": "tam",
    "Telu": "tel", "Tfng": "tzm", "Thai": "tha", "Tibt": "bod dzo",
}
_MEMBERS = {  # codes of ISO 639-3 that stand for several languages, and the one of them that NLLB knows
    "ara": "arb", "aym": "ayr", "aze": "azj", "din": "dik", "fas": "pes", "fil": "tgl", "ful": "fuv", "kau": "knc",
    "kur": "kmr", "lav": "lvs", "mlg": "plt", "mon": "khk", "nep": "npi", "nor": "nob", "ori": "ory", "orm": "gaz",
    "pus": "pbt", "que": "quy", "sqi": "als", "swa": "swh", "uzb": "uzn", "yid": "ydd",
}
SCRIPTS = {  # how Unicode's names of their letters begin
    "Arab": "ARABIC", "Armn": "ARMENIAN", "Beng": "BENGALI", "Cyrl": "CYRILLIC", "Deva": "DEVANAGARI",
    "Ethi": "ETHIOPIC", "Geor": "GEORGIAN", "Grek": "GREEK", "Gujr": "GUJARATI", "Guru": "GURMUKHI", "Hang": "HANGUL",
    "Hans": "CJK", "Hant": "CJK", "Hebr": "HEBREW", "Jpan": "CJK HIRAGANA KATAKANA", "Khmr": "KHMER",
    "Knda": "KANNADA", "Laoo": "LAO", "Latn": "LATIN", "Mlym": "MALAYALAM", "Mymr": "MYANMAR", "Orya": "ORIYA",
    "Sinh": "SINHALA", "Taml": "TAMIL", "Telu": "TELUGU", "Tfng": "TIFINAGH", "Thai": "THAI", "Tibt": "TIBETAN",
}
SHARED = ("Arab", "Beng", "Cyrl", "Deva", "Hebr", "Latn")  # scripts that do not tell the language
SAME = ("ind zsm", "yue zho", "bos hrv srp", "nob nno nor", "fas prs")  # languages that are hardly told apart
NEAR = (  # ... in short texts
    "ace ban bjn bug ind jav min sun zsm", "ceb fil ilo pag war", "bel bul mkd rus ukr", "bho hin mai mar nep",
    "cat glg oci por spa",
)
# fmt: on
FLORES = {code: f"{code}_{script}" for script, codes in _BY_SCRIPT.items() for code in codes.split()}
FLORES |= {ours: FLORES[theirs] for ours, theirs in _MEMBERS.items()}
NAMES = {"fil": "Filipino (Tagalog)", "zho": "Chinese in simplified characters", "zsm": "Malay (Bahasa Melayu)"}
NO_SPACES = ("jpn", "yue", "zho")  # nothing stands between two sentences


@cache
def name_of(language: str) -> str:
    """A language's name in English."""
    import pycountry
    from babel import Locale

    known = pycountry.languages.get(alpha_3=language)
    names = Locale("en").languages
    usual = names.get(getattr(known, "alpha_2", language)) or getattr(known, "name", language)
    return NAMES.get(language) or str(usual)


@cache
def script_of(language: str) -> str:
    """The script a language is written in, as ISO 15924 calls it."""
    from babel.core import get_global

    if language in FLORES:
        return FLORES[language].partition("_")[2]
    return next((part for part in get_global("likely_subtags").get(language, "").split("_") if part in SCRIPTS), "Latn")
