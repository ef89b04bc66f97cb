"""Translation: what is asked, what is kept of the answers, what is dropped and why, and what is never asked twice."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import convert_weights
from ggez_hub.data import texts, translators
from ggez_hub.data.languages import FLORES
from ggez_hub.data.readers import row_schema
from ggez_hub.data.texts import changed_numbers, other_language, parts, sentences, units, wrong
from ggez_hub.data.translation import Problem, Translated, languages, licenses, problems, translated, translator_of
from ggez_hub.data.translators import Cache, cleaned
from ggez_hub.errors import ConfigError, HubError, InputError
from ggez_hub.registry import load_region
from ggez_hub.schema import Region, Translate, Translator
from tests.endpoint_server import MODEL, EndpointServer, text_of

SEA = load_region("sea")
NLLB = Translator(id="facebook/nllb-200-distilled-600M")
CHAT = Translator(id=MODEL, endpoint="http://127.0.0.1:9/v1")
BLOCKS = {"Thai": 0x0E01, "Khmer": 0x1780, "Burmese": 0x1000}  # where the letters of a script begin
STAYS = r"<[^>]*>|\{\w+\}|%s|https?://\S+|\b[A-Z]\b(?=\.?$)"


def line_of(request: dict[str, Any]) -> tuple[str, str, str]:
    """Source, target and text of a request."""
    prompt = text_of(request)
    asked = re.search(r"from (.+?) to (.+?)\. ", prompt)
    assert asked
    return asked[1], asked[2], prompt.partition("\n\n")[2]


def cipher(request: dict[str, Any], stays: str = STAYS) -> str:
    """A made-up translation that can be undone: each Latin letter becomes one of another script."""
    source, target, line = line_of(request)
    if target == "English":
        start = BLOCKS[source]
        return "".join(chr(ord(c) - start + ord("a")) if start <= ord(c) < start + 26 else c for c in line)
    table = {ord("a") + i: chr(BLOCKS[target] + i) for i in range(26)}
    return "".join(
        piece if i % 2 else piece.lower().translate(table) for i, piece in enumerate(re.split(f"({stays})", line))
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EndpointServer]:
    """A server that translates by `cipher`; the client waits for nothing between attempts."""
    import openai._base_client

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr(translators, "RETRIES", 2)
    with EndpointServer(cipher) as running:
        yield running


@pytest.fixture
def into(server: EndpointServer, tmp_path: Path) -> Callable[..., Translated]:
    """Translates rows at the server: into Thai, unless told otherwise."""

    def call(rows: list[dict[str, Any]], **changes: Any) -> Translated:
        chat = Translator(id=MODEL, endpoint=server.url, license=changes.pop("license", None))
        kept = changes.pop("kept", tmp_path / "cache" / "translations.sqlite")
        chosen = Translate(**{"languages": ("tha",), "translators": {"chat": chat}, "default": "chat"} | changes)
        return translated(batch(rows), chosen, SEA, kept)

    return call


def batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, row_schema())


def caption(text: str, name: str = "row", **more: Any) -> dict[str, Any]:
    return {"id": name, "text": text, "language": "en", **more}


def asked(server: EndpointServer) -> list[str]:
    return [line_of(request)[2] for request in server.requests]


def thai(text: str) -> str:
    return "".join(chr(0x0E01 + ord(c) - ord("a")) if c in "abcdefghijklmnopqrstuvwxyz" else c for c in text.lower())


# ------------------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("ind", "ind_Latn"), ("zsm", "zsm_Latn"), ("tha", "tha_Thai"), ("vie", "vie_Latn"), ("fil", "tgl_Latn"),
        ("khm", "khm_Khmr"), ("lao", "lao_Laoo"), ("mya", "mya_Mymr"), ("tam", "tam_Taml"), ("zho", "zho_Hans"),
        ("eng", "eng_Latn"), ("jav", "jav_Latn"), ("sun", "sun_Latn"), ("min", "min_Latn"), ("ceb", "ceb_Latn"),
    ],
)  # fmt: skip
def test_languages_have_the_codes_that_nllb_knows(language: str, code: str) -> None:
    assert FLORES[language] == code


@pytest.mark.slow
def test_no_code_is_made_up() -> None:
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    assert set(FLORES.values()) <= set(FAIRSEQ_LANGUAGE_CODES)


def test_tetum_is_unsupported_by_nllb_and_the_message_names_both_ways_out() -> None:
    asked = Translate(translators={"nllb": NLLB, "chat": CHAT}, default="nllb")
    ((key, text),) = problems(asked, SEA)
    assert key == ("translate",)
    assert "tet (Tetum) is unsupported by NLLB-200" in text
    without = re.search(r"translate\.languages=\[(.*?)\]", text)
    assert without
    assert problems(asked.model_copy(update={"languages": tuple(without[1].split(", "))}), SEA) == []
    assert "translate.models.tet=NAME" in text
    assert problems(asked.model_copy(update={"models": {"tet": "chat"}}), SEA) == []


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"languages": ("ind", "tet")}, ("translate", "languages", 1), "tet (Tetum) is unsupported"),
        ({"languages": ("tha", "eng")}, ("translate", "languages", 1), "what the rows are in already"),
        ({"languages": ("qqq",)}, ("translate", "languages", 0), "no language"),
        ({"languages": ("ind", "tha"), "copies": 3}, ("translate", "copies"), "only 2 languages"),
        ({"languages": ("ind",), "default": None}, ("translate", "languages", 0), "translate.models.ind=NAME"),
    ],
)
def test_what_cannot_be_translated_is_said_at_its_key(
    changes: dict[str, Any], key: tuple[str | int, ...], words: str
) -> None:
    asked = Translate(**{"translators": {"nllb": NLLB}, "default": "nllb"} | changes)
    ((found, text),) = problems(asked, SEA)
    assert found == key
    assert words in text


def test_a_region_without_languages_needs_some_named() -> None:
    nowhere = Region(title="Nowhere", countries=("IDN",))
    ((key, text),) = problems(Translate(translators={"nllb": NLLB}, default="nllb"), nowhere)
    assert key == ("translate", "languages")
    assert "Nowhere" in text


def test_codes_of_the_same_language_mean_it_everywhere() -> None:
    chosen = Translate(
        languages=("tgl", "msa", "cmn"), translators={"a": NLLB, "b": CHAT}, models={"tgl": "b"}, default="a"
    )
    assert languages(chosen, SEA) == ("fil", "zsm", "zho")
    assert translator_of(chosen, "fil") == CHAT
    assert translator_of(chosen, "zsm") == NLLB


@pytest.mark.parametrize(
    ("translator", "expected"),
    [
        (NLLB, ["cc-by-nc-4.0"]),
        (NLLB.model_copy(update={"license": "mit"}), ["cc-by-nc-4.0", "mit"]),
        (NLLB.model_copy(update={"endpoint": CHAT.endpoint}), ["cc-by-nc-4.0"]),
        (Translator(id="a/folder"), ["cc-by-nc-4.0"]),  # whatever runs here is an NLLB checkpoint
        (Translator(id="a/folder", license="CC-BY-NC-4.0"), ["cc-by-nc-4.0"]),
        (Translator(id="a/folder", license="mit"), ["cc-by-nc-4.0", "mit"]),
        (CHAT, []),
        (CHAT.model_copy(update={"license": "gemma"}), ["gemma"]),
    ],
)
def test_the_license_of_nllb_goes_to_the_card_whatever_the_recipe_says(
    translator: Translator, expected: list[str]
) -> None:
    assert licenses(Translate(translators={"x": translator, "unused": NLLB}, default="x")) == expected


# ----------------------------------------------------------------------------------------------------------------- text
WORDS = [
    "A",
    "bowl",
    "of",
    "soup.",
    "It",
    "is",
    "red,",
    "e.g.",
    "3.50",
    "Dr.",
    "Who?",
    "สวัสดี",
    "\N{RIGHT DOUBLE QUOTATION MARK}",
]
MARKS = ["<image>", "<b>", "</b>", "<br/>", "<|im_end|>", "{name}", "{0}", "${x}", "%s", "%(n)d", "%1$s", "%.2f",
         "https://a.org/b?c=1&d=2", "www.a.org/x", "me@a.org", "`x + 1`", "$x^2$", "\\(a+b\\)", "🙂"]  # fmt: skip


def within(text: str) -> list[str]:
    return [part.text for part in parts(text) if part.translate]


@given(st.text(st.sampled_from("aB. <>/{}`%s\n\t1)-*(:A🙂ก\u2028"), max_size=60))
def test_the_parts_of_a_text_are_the_text(text: str) -> None:
    assert "".join(part.text for part in parts(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<image>\nWhat is it?\nA. Pho\n(B) cat\nc) dog", ["What is it?", "Pho", "cat", "dog"]),
        ("Which? A. cat B. dog C. bird", ["Which?", "cat", "dog", "bird"]),
        ("- 1. Wash it. <image>", ["Wash it."]),
        ("🙂 Hello! 🙂", ["Hello!"]),
        ("Press <b>this</b> now", ["Press <b>this</b> now"]),
        ("<b>Hello</b>\n<image> A. <i>Pho</i>", ["Hello", "Pho"]),
        ("See:\n```python\nprint('hello')\n```\nDone.", ["See:", "Done."]),
        ("12:30\n(B)\nA.\nC\nhttps://a.org\n{name}\n---", []),
        ("", []),
    ],
)
def test_only_words_are_for_the_model(text: str, expected: list[str]) -> None:
    assert within(text) == expected


def test_sentences_end_where_they_end() -> None:
    text = 'Dr. Lee came to the U.S. in 1990. "Why?" he asked. It cost 3.50 (or so)! See e.g. Pho. 3 cats.'
    assert list(sentences(text)) == [
        "Dr. Lee came to the U.S. in 1990.", '"Why?" he asked.', "It cost 3.50 (or so)!", "See e.g. Pho.", "3 cats.",
    ]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=60), st.integers(8, 60), st.booleans())
def test_units_fit_and_are_the_line(words: list[str], longest: int, several: bool) -> None:
    found = units(" ".join(words), lambda text: len(text) <= longest, several)
    assert " ".join(found) == " ".join(words)
    assert all(len(unit) <= longest or " " not in unit for unit in found)


# --------------------------------------------------------------------------------------------------------------- checks
DIGITS = {"tha": 0x0E50, "lao": 0x0ED0, "khm": 0x17E0, "mya": 0x1040, "tam": 0x0BE6, "ind": ord("0")}


@given(
    st.lists(st.integers(0, 10**9), max_size=4),
    st.sampled_from(sorted(DIGITS)),
    st.sampled_from([",", ".", "", "\u202f"]),
)
def test_numbers_are_the_same_in_digits_of_any_script_and_however_thousands_are_set_apart(
    numbers: list[int], language: str, separator: str
) -> None:
    source = " and ".join(f"{number:,}" for number in numbers)
    target = " ".join(f"{number:,}".replace(",", separator) for number in reversed(numbers))
    target = target.translate({ord("0") + i: chr(DIGITS[language] + i) for i in range(10)})
    assert changed_numbers(source, target, language) == ""


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4), st.integers(0, 10**6), st.data())
def test_a_number_that_is_another_one_is_found(numbers: list[int], other: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(numbers) - 1))
    changed = [other if i == place else number for i, number in enumerate(numbers)]
    source, target = ("; ".join(map(str, some)) for some in (numbers, changed))
    assert bool(changed_numbers(source, target, "ind")) == (Counter(numbers) != Counter(changed))
    assert changed_numbers(source, "; ".join(map(str, numbers[:place] + numbers[place + 1 :])), "ind")


@pytest.mark.parametrize(
    ("source", "target", "language", "same"),
    [
        ("at 3:30", "pukul 3.30", "ind", True),
        ("1,2,3", "1, 2, 3", "ind", True),
        ("the 19th century", "abad ke-19", "ind", True),
        ("two cats", "2 kucing", "ind", True),
        ("cats", "2 kucing", "ind", False),
        ("3 cats, 12 dogs", "三只猫，12只狗", "zho", True),
        ("3 cats", "四只猫", "zho", False),
        ("in 2020", "ในปี ๒๕๖๓", "tha", True),  # years of the Buddhist era
        ("in 2020", "ปี ๒๕๖๔", "tha", False),
        ("in 2020", "tahun 2563", "ind", False),
        ("60,000 people", "6万人", "zho", True),
        ("10 million people", "1000万人", "zho", True),
        ("10 million people", "100万人", "zho", False),
        ("3 million people", "三百万人", "zho", True),
        ("1.5 million rupiah", "1.500.000 rupiah", "ind", True),
        ("1.5 million rupiah", "1,5 juta rupiah", "ind", True),
        ("10 million", "10 милиона", "bul", True),  # a word that is not known here
        ("300,000 in 2020", "3 แสนในปี 2563", "tha", True),
        ("60,000", "600", "ind", False),
        ("1" * 5000, "1" * 5000 + "0", "ind", False),
        ("05 August", "5 Agustus", "ind", True),
    ],
)
def test_numbers_as_languages_write_them(source: str, target: str, language: str, same: bool) -> None:
    assert (changed_numbers(source, target, language) == "") == same


@given(
    st.lists(st.sampled_from([*WORDS, *MARKS]), min_size=1, max_size=12), st.randoms(use_true_random=False), st.data()
)
def test_placeholders_may_move_but_none_may_be_lost_changed_or_added(
    words: list[str], random: Any, data: st.DataObject
) -> None:
    own = ["ก" * max(2, len(word)) if word.isalpha() else word for word in words if word in MARKS or not word.isascii()]
    source, target = " ".join(["red", *words]), " ".join(["ก", *random.sample(own, len(own))])
    if not any(re.search(r"\d", word) for word in words if word not in MARKS):
        assert (wrong(source, target, "tha") or ("",))[0] not in (texts.PLACEHOLDERS, "a number changed")
    marks = [word for word in own if word in MARKS]
    mark = data.draw(st.sampled_from(marks or MARKS))
    changed = target.replace(mark, "ก", 1) if marks else f"{target} {mark}"
    found = wrong(source, changed, "tha")
    assert found
    assert found[0] == texts.PLACEHOLDERS


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("A red bowl.", "Sebuah mangkuk merah.", None),
        ("A red bowl.", " ", "nothing came back"),
        ("A red bowl.", "a red  bowl", "it is not translated"),
        ("the temple", "the temple", "it is not translated"),
        ("Borobudur", "Borobudur", None),  # names may stay
        ("Nasi goreng", "nasi goreng", None),
        ("A bowl of soup", "mangkuk " * 8, "it repeats itself"),
        ("ha ha ha ha ha ha ha ha", "ha ha ha ha ha ha ha ha ya", None),
        ("A bowl.", "Sebuah mangkuk yang cantik sekali, berwarna merah tua, di atas meja kayu", "it is too long"),
        ("The red bowl stands on a wooden table by the window.", "Mangkuk merah", "it is too short"),
    ],
)
def test_what_is_no_translation_is_found(source: str, target: str, reason: str | None) -> None:
    assert (wrong(source, target, "ind") or (None,))[0] == reason


def test_chinese_may_be_much_shorter() -> None:
    assert wrong("The red bowl stands on a wooden table by the window.", "红碗放在窗边的木桌上", "zho") is None


INDONESIAN = "Perempuan itu mengenakan kebaya dan kain batik pada upacara pernikahan adat di desa kami yang indah."
JAVANESE = "Rendang iku panganan khas Minangkabau sing dimasak nganggo santen lan bumbu rempah akeh banget lan enak."
TAGALOG = "Ang babae ay nakasuot ng baro't saya sa kasal sa simbahan."


@pytest.mark.parametrize(
    ("text", "asked_for", "found"),
    [
        (INDONESIAN, "ind", ""),
        (INDONESIAN, "eng", "Indonesian"),
        ("The woman wears a kebaya and a batik cloth at the wedding.", "eng", ""),
        (INDONESIAN, "zsm", ""),  # hardly told apart
        (INDONESIAN, "vie", "Indonesian"),
        (INDONESIAN, "tha", "Latin letters"),
        (INDONESIAN[:40], "jav", ""),  # too short to tell
        (JAVANESE, "jav", ""),
        (JAVANESE, "ind", "Javanese"),
        (INDONESIAN, "sun", ""),  # unknown to py3langid: all it can say is that it is not English
        ("The woman wears a kebaya and a batik cloth at the wedding.", "sun", "English"),
        ("The woman wears a kebaya and a batik cloth at the wedding.", "tet", "English"),
        (TAGALOG, "fil", ""),
        (TAGALOG, "ind", "Filipino (Tagalog)"),
        ("Sate", "ind", ""),
        ("แมว iPhone", "tha", "Latin letters"),
        ("ผู้หญิงสวมชุดไทยในงานแต่งงาน iPhone", "tha", ""),
        ("ຖ້ວຍສີແດງ", "tha", "Lao letters"),
        ("အနီရောင်ပန်းကန်", "mya", ""),
        ("一个红色的碗", "zho", ""),
        ("赤いボウルがあります", "zho", "Japanese"),
        ("<b>1234</b> 😀", "tha", ""),
        ("", "tha", ""),
    ],
)  # fmt: skip
def test_the_script_and_then_the_words_tell_the_language(text: str, asked_for: str, found: str) -> None:
    assert other_language(text, asked_for, SEA.languages) == found


def test_a_language_that_nothing_is_known_of_is_english_only_where_a_text_is_most_like_that() -> None:
    english = "The woman wears a kebaya and a batik cloth at the wedding."
    assert [other_language(text, "min") for text in (INDONESIAN, english)] == ["", "English"]


@pytest.mark.slow
def test_captions_written_by_people_pass_the_checks_and_untranslated_ones_do_not(shared: Path) -> None:
    import csv

    from ggez_hub.data.codes import iso639

    checked = alarms = caught = unlike = 0
    with (shared / "data" / "sea_vl" / "captions.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            named = re.search(r"\((\w{3})\)", row["native_language"])
            language = iso639(named[1]) if named else None
            english, native = (" ".join(row[f"caption_{side}"].split()) for side in ("en", "native"))
            if language not in ("ind", "tha", "vie", "fil", "zho") or not english or english == native:
                continue
            checked += 1
            alarms += bool(other_language(native, language, SEA.languages))
            unlike += wrong(english, native, language) is not None
            caught += bool(other_language(english, language, SEA.languages))
    assert checked > 1500
    assert unlike < 0.01 * checked  # most of these leave a number or the half of the text out
    assert alarms < 0.01 * checked  # most of these are indeed in another language than the file says
    assert caught > 0.85 * checked  # the others are names of dishes and places, for the most part


@pytest.mark.parametrize(
    ("answer", "source", "expected"),
    [
        ("Mangkuk merah.", "A red bowl.", "Mangkuk merah."),
        ('"Mangkuk merah."', "A red bowl.", "Mangkuk merah."),
        ("“Mangkuk merah.”", "A red bowl.", "Mangkuk merah."),
        ('"Merah" dan "biru"', "Red and blue", '"Merah" dan "biru"'),
        ('"Ya," katanya, "ya"', '"Yes," he said, "yes"', '"Ya," katanya, "ya"'),
        ("Here is the translation:\n\nMangkuk merah.", "A red bowl.", "Mangkuk merah."),
        ("Translation: Mangkuk merah.", "A red bowl.", "Mangkuk merah."),
        ("Here is the translation: Mangkuk merah.", "A red bowl.", "Mangkuk merah."),
        ("Sure! Here's the Indonesian translation:\nMangkuk merah.", "See: a red bowl.", "Mangkuk merah."),
        ("Certainly:\n\nTranslation: Mangkuk merah.", "A red bowl.", "Mangkuk merah."),
        ("Here is the translation:", "A red bowl.", None),
        ("Mangkuk merah. (Note: or mangkok.)", "A red bowl.", None),
        ("Mangkuk (Wat Arun) merah.", "A red bowl.", "Mangkuk (Wat Arun) merah."),
        ("Indonesian: Mangkuk merah.", "A red bowl.", "Mangkuk merah."),
        ("Translation: Terjemahan", "Translation: what it is", "Translation: Terjemahan"),
        ("```\nMangkuk merah.\n```", "A red bowl.", "Mangkuk merah."),
        ("<think>\nA bowl...\n</think>\nMangkuk merah.", "A red bowl.", "Mangkuk merah."),
        ("Mangkuk\x00 merah.\x1b", "A red bowl.", "Mangkuk merah."),
        ("Mangkuk merah.\n(Note: bowl can also be mangkok.)", "A red bowl.", None),
        ("", "A red bowl.", None),
        ('""', "A red bowl.", None),
    ],
)
def test_of_an_answer_only_the_translation_is_kept(answer: str, source: str, expected: str | None) -> None:
    found = cleaned(answer, source, "Indonesian")
    assert (found.text or None) == expected
    assert bool(found.problem) == (expected is None)


# ------------------------------------------------------------------------------------------------------------- endpoint
def test_a_caption_comes_out_in_the_language_with_a_new_name_and_its_picture(into: Callable[..., Translated]) -> None:
    row = caption("A red bowl.", label="bowl", country="THA", question="What?", options=["a"], answer="a")
    made = into([row | {"image": {"bytes": b"png", "path": None}, "license": "cc-by-4.0"}])
    assert made.problems == []
    assert made.origin == [0]
    (out,) = made.batch.to_pylist()
    assert made.batch.schema == row_schema()
    assert {key: value for key, value in out.items() if value is not None} == {
        "id": "row#tha", "text": thai("A red bowl."), "language": "tha", "license": "cc-by-4.0", "label": "bowl",
        "country": "THA", "image": {"bytes": b"png", "path": None},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("own", "theirs", "expected"),
    [
        ("cc-by-4.0", None, "cc-by-4.0"),
        ("cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0 AND cc-by-nc-4.0"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("cc-by-sa-4.0", "mit", "cc-by-sa-4.0"),
        (None, "gemma", "gemma"),
    ],
)
def test_a_row_carries_the_license_of_its_translator_as_well(
    into: Callable[..., Translated], own: str | None, theirs: str | None, expected: str | None
) -> None:
    made = into([caption("A red bowl.", license=own)], license=theirs)
    assert made.batch["license"].to_pylist() == [expected]


def test_rows_in_other_languages_stay_and_the_order_is_kept(into: Callable[..., Translated]) -> None:
    rows = [
        caption("Ein Haus.", "a", language="de", answer="x"),
        caption("A red bowl.", "b"),
        caption("A cat.", "c", language=None),
        caption("Sebuah rumah.", "d", language="ind"),
        caption("A dog.", "e", language="eng"),
    ]
    made = into(rows)
    assert made.batch["id"].to_pylist() == ["a", "b#tha", "c#tha", "d", "e#tha"]
    assert made.batch["answer"].to_pylist() == ["x", None, None, None, None]
    assert made.origin == [0, 1, 2, 3, 4]


def test_rows_of_no_stated_language_are_translated_if_their_words_are_english(into: Callable[..., Translated]) -> None:
    texts = ["A woman in a red kebaya stands by the river.", INDONESIAN, "ผู้หญิงสวมชุดไทย", "Pho", None]
    made = into([caption(text, str(i), language=None) for i, text in enumerate(texts)])
    assert made.batch["id"].to_pylist() == ["0#tha", "1", "2", "3#tha"]
    assert [(p.row, p.reason) for p in made.problems] == [(4, "it has nothing to translate")]
    assert made.batch["text"].to_pylist()[1:3] == texts[1:3]


def test_nothing_in_gives_nothing_out(into: Callable[..., Translated], server: EndpointServer) -> None:
    made = into([])
    assert made.batch.schema == row_schema()
    assert (made.batch.num_rows, made.origin, made.problems, server.requests) == (0, [], [], [])


def conversation(*turns: str, name: str = "talk") -> dict[str, Any]:
    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    return {"id": name, "messages": messages, "language": "en"}


def said(made: Translated) -> list[str]:
    assert made.problems == []
    (messages,) = made.batch["messages"].to_pylist()
    return [message["content"] for message in messages]


def test_a_conversation_keeps_its_picture_its_options_letters_and_lines(
    into: Callable[..., Translated], server: EndpointServer
) -> None:
    question = "<image>\nWhich dish is it?\nA. Fried rice\nB. Noodle soup\nAnswer with the letter."
    made = into([conversation(question, "B", "Say it in words.", "B. noodle soup.")])
    user, answer, _, words = said(made)
    lines = user.split("\n")
    assert lines[0] == "<image>"
    assert lines[2:4] == [f"A. {thai('fried rice')}", f"B. {thai('noodle soup')}"]
    assert answer == "B"
    assert words == f"{lines[3]}."
    assert Counter(asked(server))["Noodle soup"] == 1, "what stands there twice is asked for once"


def test_a_capital_before_a_letter_with_an_accent_is_no_option(
    into: Callable[..., Translated], server: EndpointServer
) -> None:
    server.answer = lambda request: "ขคง Bánh" if "It is soup" in text_of(request) else cipher(request)
    made = into([conversation("Which?\nA. Fried rice\nB. Noodle soup", "It is soup.")])
    assert made.problems == []


def test_an_answer_that_repeats_an_option_comes_out_as_it_does(
    into: Callable[..., Translated], server: EndpointServer
) -> None:
    numbers = iter("abcdefghijklmnopqrstuvwxyz")
    server.answer = lambda request: thai(f"unlike before {next(numbers)}")  # never the same
    user, answer = said(into([conversation("Which? A. Fried rice B. Noodle soup", "noodle soup.")]))
    assert user.endswith(f"B. {answer.removesuffix('.')}")


@pytest.mark.parametrize("spoiled", ["ขคง", "ขคง A", "ขคง B ขคง C"])
def test_an_answer_that_names_another_letter_is_dropped(
    into: Callable[..., Translated], server: EndpointServer, spoiled: str
) -> None:
    question = "Which?\nA. Fried rice\nB. Noodle soup\nC. Bread"
    server.answer = lambda request: spoiled if "answer is" in text_of(request) else cipher(request)
    made = into([conversation(question, "The answer is B.")])
    assert made.batch.num_rows == 0
    assert [problem.reason for problem in made.problems] == ["the letter of an answer changed"]
    server.answer = lambda request: "ขคง B" if "answer is" in text_of(request) else cipher(request)
    assert into([conversation(question, "The answer is B.", name="again")], kept=Path(":memory:")).problems == []


@pytest.mark.parametrize(
    ("answer", "made", "kept"),
    [
        ("It is A.", "ขคง A", True),
        ("It is A.", "ขคง", False),
        ("A dog is in it.", "ขคง", True),  # a word
        ("It is B, not a cat.", "ขคง B A", True),  # "A" on top may be a word as well
        ("It is B.", "ขคง B C", False),
    ],
)
def test_a_may_be_a_letter_or_a_word(
    into: Callable[..., Translated], server: EndpointServer, answer: str, made: str, kept: bool
) -> None:
    server.answer = lambda request: made if answer in text_of(request) else cipher(request)
    found = into([conversation("Which?\nA. Fried rice\nB. Noodle soup\nC. Bread", answer)])
    assert (found.problems == []) == kept


def test_placeholders_and_numbers_come_out_as_they_went_in(server: EndpointServer) -> None:
    server.answer = lambda request: cipher(request, stays="$^")  # translates tags and addresses, too
    chat = Translator(id=MODEL, endpoint=server.url)
    chosen = Translate(languages=("tha",), translators={"chat": chat}, default="chat", check_language=False)

    @settings(max_examples=6)
    @given(words=st.lists(st.sampled_from([*MARKS, "bowl", "soup", "red", "12"]), min_size=1, max_size=8))
    def holds(words: list[str]) -> None:
        text = " ".join(["This", *words, "here"])
        made = translated(batch([caption(text)]), chosen, SEA, Path(":memory:"))
        (out,) = made.batch["text"].to_pylist()
        for mark in (*MARKS, "12"):
            assert out.count(mark) == text.count(mark)
        assert "bowl" not in out

    holds()


@pytest.mark.parametrize(
    "text", ["a", ".", "$_", "\\(", "a.", "1", " ", "<a ", "http://.", "x" * 50 + " ", "A red bowl, with 3 eggs. "]
)
def test_a_text_of_many_characters_is_taken_apart_and_checked(text: str) -> None:
    # Where a pattern takes the square of their number of steps, this takes minutes in all.
    whole = "$" + "_" * 20_000 if text == "$_" else text * (20_000 // len(text))
    found = [unit for part in parts(whole) if part.translate for unit in units(part.text, lambda u: len(u) < 600, True)]
    assert "".join(found).replace(" ", "") in whole.replace(" ", "")
    assert (wrong(whole, f"{whole} ya", "ind") or ("",))[0] in ("", "it is not translated", "a number changed")


def test_text_that_no_file_can_hold_is_cleaned(into: Callable[..., Translated], server: EndpointServer) -> None:
    server.answer = lambda request: f"{cipher(request)}\x07"
    made = into([caption("A red\x00 bowl\x1b.\r\nA cat.")])
    assert made.batch["text"].to_pylist() == [thai("A red bowl.\nA cat.")]
    server.answer = lambda request: f"{cipher(request)} \ud800"  # half of a character
    assert into([caption("A dog.")]).batch["text"].to_pylist() == [thai("A dog. ?")]


def test_each_row_is_drawn_into_its_own_languages_by_its_id(into: Callable[..., Translated]) -> None:
    rows = [caption("A red bowl.", f"row {i}") for i in range(60)]
    chosen = {"languages": ("tha", "khm", "mya"), "copies": 2}
    made = into(rows, **chosen)
    drawn = {
        (name.partition("#")[0], language)
        for name, language in zip(made.batch["id"].to_pylist(), made.batch["language"].to_pylist(), strict=True)
    }
    assert Counter(name for name, _ in drawn) == {f"row {i}": 2 for i in range(60)}
    counts = Counter(language for _, language in drawn)
    assert min(counts["tha"], counts["khm"], counts["mya"]) > 25
    some = into(list(reversed(rows))[:7], **chosen).batch["id"].to_pylist()
    assert {(name.partition("#")[0], name.partition("#")[2]) for name in some} <= drawn
    fewer = into(rows, languages=("tha", "khm", "mya"), copies=1).batch["id"].to_pylist()
    assert {tuple(name.split("#")) for name in fewer} <= drawn


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "there is no translation"),
        ("ก ๑ ข", "a number changed"),
        ("A bowl with 2 eggs.", "it is not translated"),
        ("Sebuah mangkuk dengan 2 telur rebus.", "it is in another language"),
        ("กขค 2 ง\nNote: something", "there is no translation"),
        ("กข 2 " + "คงจ" * 10, "it repeats itself"),
    ],
)
def test_a_row_whose_translation_is_bad_is_dropped_with_its_reason(
    into: Callable[..., Translated], server: EndpointServer, answer: str, reason: str
) -> None:
    server.answer = lambda request: answer if "eggs" in text_of(request) else cipher(request)
    made = into([caption("A cat.", "good"), caption("A bowl with 2 eggs.", "bad")])
    assert made.batch["id"].to_pylist() == ["good#tha"]
    (problem,) = made.problems
    assert (problem.row, problem.language, problem.reason) == (1, "tha", reason)


def test_a_row_without_words_is_dropped(into: Callable[..., Translated], server: EndpointServer) -> None:
    assert into([caption("<image> 12")]).problems == [Problem(0, "tha", "it has nothing to translate")]
    assert server.requests == []


@pytest.mark.parametrize("least", [0.5, 0.9])
def test_what_comes_back_as_something_else_is_dropped(
    into: Callable[..., Translated], server: EndpointServer, least: float
) -> None:
    def forgets(request: dict[str, Any]) -> str:
        _, target, line = line_of(request)
        return "a wholly different thing" if target == "English" and len(line) > 8 else cipher(request)

    server.answer = forgets
    made = into([caption("a cat"), caption("the red bowl by the window")], min_back=least)
    assert made.batch["text"].to_pylist() == [thai("a cat")]
    assert [problem.reason for problem in made.problems] == ["too little of it comes back"]


def test_a_long_line_is_asked_for_in_pieces_at_the_ends_of_sentences(
    into: Callable[..., Translated], server: EndpointServer
) -> None:
    text = " ".join(f"This is sentence {i} of a long text about a bowl." for i in range(40))
    made = into([caption(text)])
    assert made.batch["text"].to_pylist() == [re.sub("(?i)[a-z]", lambda c: thai(c[0]), text)]
    assert 2 < len(server.requests) < 8
    assert all(line.endswith("bowl.") and len(line) <= translators.CHARACTERS for line in asked(server))


@pytest.mark.parametrize("trouble", ["refuse", "no text", "half", "slow"])
def test_a_text_that_the_server_fails_on_costs_its_row_alone(
    into: Callable[..., Translated], server: EndpointServer, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(translators, "TIMEOUT", 0.1)
    server.script = {"dog": [trouble] * 9}
    made = into([caption("A cat.", "cat"), caption("A dog.", "dog")])
    assert made.batch["id"].to_pylist() == ["cat#tha"]
    (problem,) = made.problems
    assert (problem.row, problem.reason) == (1, "there is no translation")
    assert problem.detail


def test_a_text_refused_alone_is_no_broken_server(into: Callable[..., Translated], server: EndpointServer) -> None:
    server.script = {"dog": ["refuse"]}
    made = into([caption("A dog.", "dog")])
    assert [problem.reason for problem in made.problems] == ["there is no translation"]


def test_a_busy_server_is_asked_again(into: Callable[..., Translated], server: EndpointServer) -> None:
    server.script = {"cat": ["busy", "broken"]}
    assert into([caption("A cat.")]).problems == []


def test_a_server_that_is_down_ends_the_job_and_what_was_translated_is_kept(
    into: Callable[..., Translated], server: EndpointServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translators, "GROUP", 4)
    rows = [caption(f"A cat {name}.", name) for name in "bcdefghijklm"]
    server.script = {f"cat {name}": ["broken"] * 3 for name in "fghijklm"} | {"Good morning": ["broken"] * 3}
    with pytest.raises(HubError, match="500") as error:
        into(rows)
    assert "is kept" in (error.value.hint or "")
    server.script, before = {}, len(server.requests)
    assert into(rows).problems == []
    assert sorted(asked(server)[before:]) == sorted(f"A cat {name}." for name in "fghijklm")


def test_a_wrong_model_name_ends_the_job(server: EndpointServer, tmp_path: Path) -> None:
    other = Translate(languages=("tha",), translators={"x": Translator(id="tinny", endpoint=server.url)}, default="x")
    with pytest.raises(HubError, match="did you mean 'tiny'"):
        translated(batch([caption("A cat.")]), other, SEA, tmp_path / "kept.sqlite")


def test_settings_that_cannot_be_are_refused_before_anything_is_asked(into: Callable[..., Translated]) -> None:
    with pytest.raises(ConfigError, match=r"translate\.copies"):
        into([caption("A cat.")], copies=2)


# ---------------------------------------------------------------------------------------------------------------- cache
def test_what_was_translated_is_not_asked_for_again(
    into: Callable[..., Translated], server: EndpointServer, tmp_path: Path
) -> None:
    rows = [caption("A red bowl.", "a"), caption("A red bowl.", "b"), conversation("What is it?", "A red bowl.")]
    first = into(rows, min_back=0.5)
    asked_for = Counter(map(text_of, server.requests))
    assert set(asked_for.values()) == {1}
    second = into(rows, min_back=0.5)
    assert second.batch.equals(first.batch)
    assert len(server.requests) == asked_for.total()
    into(rows, languages=("khm",))
    assert len(server.requests) == asked_for.total() + 2, "another language is another translation"


@pytest.mark.slow
def test_a_killed_job_goes_on_where_it_stopped(
    into: Callable[..., Translated], server: EndpointServer, tmp_path: Path
) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import pyarrow as pa\n"
        "from ggez_hub.data import translation, translators\n"
        "from ggez_hub.schema import Region, Translate, Translator\n"
        "translators.GROUP = 8\n"
        "chat = Translator(id='tiny', endpoint=sys.argv[1])\n"
        "settings = Translate(languages=('tha',), translators={'chat': chat}, default='chat')\n"
        "rows = [{'id': str(i), 'text': f'A cat with {i} legs.', 'language': 'en'} for i in range(60)]\n"
        "region, kept = Region(title='SEA', countries=('THA',)), Path(sys.argv[2])\n"
        "translation.translated(pa.RecordBatch.from_pylist(rows), settings, region, kept)\n"
    )
    kept = tmp_path / "kept.sqlite"

    def deadly(request: dict[str, Any]) -> str:
        if len(server.requests) > 30:
            os.kill(job.pid, signal.SIGKILL)
        return cipher(request)

    server.answer = deadly
    job = subprocess.Popen([sys.executable, str(script), server.url, str(kept)])
    assert job.wait(120) == -signal.SIGKILL
    finished = set(asked(server)[:24])  # three groups of eight; the fourth was lost
    server.answer = cipher
    server.requests.clear()
    made = into([caption(f"A cat with {i} legs.", str(i)) for i in range(60)], kept=kept)
    assert (made.batch.num_rows, made.problems) == (60, [])
    assert len(server.requests) == 60 - 24
    assert not finished & set(asked(server))


def test_several_processes_may_keep_translations_in_one_file(tmp_path: Path) -> None:
    def work(number: int) -> None:
        kept = Cache(tmp_path / "kept.sqlite")
        for i in range(6):
            kept.put({bytes([i]): f"by {number}", bytes([100 + number, i]): "own"})
        kept.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    kept = Cache(tmp_path / "kept.sqlite")
    assert len(kept.get([bytes([100 + n, i]) for n in range(4) for i in range(6)])) == 24
    assert len(kept.get([bytes([i]) for i in range(6)])) == 6


@pytest.mark.parametrize("sound", [0, 4096], ids=["no database", "torn"])
def test_a_damaged_file_of_translations_is_refused_and_the_hint_says_what_to_do(
    into: Callable[..., Translated], tmp_path: Path, sound: int
) -> None:
    path = tmp_path / "kept.sqlite"
    kept = Cache(path)
    kept.put({bytes([i]) * 32: "ก" * 50 for i in range(200)})
    kept.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:sound] + b"no database" * 4000)
    with pytest.raises(InputError, match="cannot be kept") as error:
        into([caption("A cat.")], kept=path)
    assert "move that file away" in (error.value.hint or "")
    path.rename(tmp_path / "away")
    assert into([caption("A cat.")], kept=path).problems == []


def test_another_prompt_asks_again(
    into: Callable[..., Translated], server: EndpointServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    into([caption("A cat.")])
    monkeypatch.setattr(translators, "PROMPT", translators.PROMPT.replace("natural", "very natural"))
    translators.model.cache_clear()
    into([caption("A cat.")])
    assert asked(server) == ["A cat."] * 2


def test_a_place_where_no_file_can_be_is_one_clear_error(into: Callable[..., Translated], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be kept"):
        into([caption("A cat.")], kept=tmp_path)


# ----------------------------------------------------------------------------------------------------------------- NLLB
TAUGHT = {
    "ind": {
        "A red bowl.": "Mangkuk merah.",
        "Three cats.": "Tiga kucing.",
        "A house by the river.": "Rumah di tepi sungai.",
    },
    "tha": {"A red bowl.": "ชามสีแดง", "Three cats.": "แมวสามตัว", "A house by the river.": "บ้านริมแม่น้ำ"},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny NLLB: the real classes, taught a few sentences in both directions."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    torch.manual_seed(0)
    pairs = [
        side
        for language, texts in TAUGHT.items()
        for english, other in texts.items()
        for side in (("eng", english, language, other), (language, other, "eng", english))
    ]
    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False)
    pieces.train_from_iterator([text for _, text, _, _ in pairs], trainer)
    made = json.loads(pieces.to_str())["model"]
    codes = ["eng_Latn", "ind_Latn", "tha_Thai"]
    tokenizer = NllbTokenizer(made["vocab"], [tuple(pair) for pair in made["merges"]], extra_special_tokens=codes)
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in
             (("layers", 1), ("attention_heads", 2), ("ffn_dim", 64), ("layerdrop", 0.0))}  # fmt: skip
    rates = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
    network = M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(tokenizer), d_model=32, **sizes, **rates))

    def tokens(language: str, text: str) -> list[int]:
        tokenizer.src_lang = FLORES[language]
        return tokenizer(text)["input_ids"]

    def padded(rows: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (max(map(len, rows)) - len(row)) for row in rows])

    given = padded([tokens(*pair[:2]) for pair in pairs], 1)
    wanted = padded([tokens(*pair[2:]) for pair in pairs], -100)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(80):
        network(input_ids=given, attention_mask=(given != 1).long(), labels=wanted).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("nllb") / "tiny"
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_nllb(folder: Path, kept: Path, rows: list[dict[str, Any]], **changes: Any) -> Translated:
    chosen = {"languages": ("ind", "tha"), "translators": {"nllb": Translator(id=str(folder))}, "default": "nllb"}
    return translated(batch(rows), Translate(**chosen | {"copies": 2} | changes), SEA, kept)


def test_nllb_translates_sentence_by_sentence_into_the_language_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    rows = [
        caption("A house by the river. A red bowl.", "a"),
        conversation("<image>\nThree cats.", "A red bowl.", name="b"),
    ]
    made = by_nllb(checkpoint, tmp_path / "kept.sqlite", rows, min_back=0.9)
    assert made.problems == []
    found = {row["id"]: row for row in made.batch.to_pylist()}
    assert found["a#ind"]["text"] == "Rumah di tepi sungai. Mangkuk merah."
    assert found["a#tha"]["text"] == "บ้านริมแม่น้ำ ชามสีแดง"
    assert [message["content"] for message in found["b#tha"]["messages"]] == ["<image>\nแมวสามตัว", "ชามสีแดง"]
    assert {row["license"] for row in found.values()} == {"cc-by-nc-4.0"}


def test_nllb_is_loaded_once_and_asked_once(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GenerationMixin

    rows = [caption("A red bowl."), caption("Three cats.")]
    first = by_nllb(checkpoint, tmp_path / "kept.sqlite", rows)
    model = translators.model(Translator(id=str(checkpoint)))
    monkeypatch.delattr(GenerationMixin, "generate")  # nobody may ask it
    assert by_nllb(checkpoint, tmp_path / "kept.sqlite", rows).batch.equals(first.batch)
    assert translators.model(Translator(id=str(checkpoint))) is model


def test_what_a_model_makes_of_words_it_does_not_know_is_dropped(checkpoint: Path, tmp_path: Path) -> None:
    made = by_nllb(checkpoint, tmp_path / "kept.sqlite", [caption("Borobudur stands on 9 platforms.")], min_back=0.5)
    assert made.batch.num_rows == 0
    assert [problem.language for problem in made.problems] == ["ind", "tha"]


def test_a_text_of_more_tokens_than_nllb_takes_is_split_and_joined(checkpoint: Path) -> None:
    model = translators.model(Translator(id=str(checkpoint)))
    text = " ".join(["river"] * 900) + ". Three cats."
    found = model.units(text)
    assert " ".join(found) == text
    assert len(found) > 2
    ((_, answers),) = list(model.translate([" ".join(["river"] * 900)], "eng", "ind"))
    assert "512 tokens" in answers[0].problem


def test_where_memory_does_not_do_for_many_texts_fewer_are_translated_at_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GenerationMixin

    whole = GenerationMixin.generate

    def small(self: Any, input_ids: torch.Tensor, **settings: Any) -> torch.Tensor:
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return whole(self, input_ids=input_ids, **settings)

    monkeypatch.setattr(GenerationMixin, "generate", small)
    rows = [caption(text, text) for text in TAUGHT["ind"]]
    made = by_nllb(checkpoint, tmp_path / "kept.sqlite", rows, languages=("ind",), copies=1)
    assert made.batch["text"].to_pylist() == list(TAUGHT["ind"].values())


def test_a_translation_that_was_cut_off_is_none(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GenerationMixin

    whole = GenerationMixin.generate
    monkeypatch.setattr(GenerationMixin, "generate", lambda self, **settings: whole(self, **settings)[:, :-1])
    made = by_nllb(checkpoint, tmp_path / "kept.sqlite", [caption("A red bowl.")], languages=("ind",), copies=1)
    assert made.problems == [Problem(0, "ind", "there is no translation", "it has no end")]


def test_words_that_look_like_tokens_of_the_model_are_words(checkpoint: Path, tmp_path: Path) -> None:
    made = by_nllb(checkpoint, tmp_path / "kept.sqlite", [caption("</s>A red bowl.</s>")], languages=("ind",), copies=1)
    assert made.batch["text"].to_pylist() == ["</s>Mangkuk merah.</s>"]


def test_a_language_that_the_tokenizer_lacks_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="khm_Khmr") as error:
        by_nllb(checkpoint, tmp_path / "kept.sqlite", [caption("A cat.")], languages=("khm",), copies=1)
    assert "translate.models.khm" in (error.value.hint or "")


def pickled(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint as Meta publishes it: its weights are pickles, with what others repeat or compute."""
    from safetensors.torch import load_file

    shutil.copytree(checkpoint, folder)
    state = load_file(folder / "model.safetensors")
    words = next(state[name] for name in ("model.shared.weight", "lm_head.weight") if name in state)
    for name in ("lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "model.shared"):
        state[f"{name}.weight"] = words
    state["model.encoder.embed_positions.weights"] = torch.zeros(1026, 32)
    names = sorted(state)
    torch.save({name: state[name] for name in names[:9]}, folder / "pytorch_model.bin")
    torch.save({name: state[name] for name in names[9:]}, folder / "pytorch_model-00002-of-00002.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_a_checkpoint_in_a_pickle_is_converted_and_then_translates(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pickled(checkpoint, tmp_path / "pickled")
    with pytest.raises(InputError, match="pickles are not loaded") as error:
        by_nllb(folder, tmp_path / "kept.sqlite", [caption("A red bowl.")])
    command = (error.value.hint or "").partition("convert_weights.py ")[2].split()[:3]
    assert command == ["nllb", "PICKLED", "FOLDER"]
    assert convert_weights.main(["nllb", str(folder), str(tmp_path / "new")]) == 0
    assert {path.suffix for path in (tmp_path / "new").iterdir()} == {".json", ".safetensors"}
    made = by_nllb(tmp_path / "new", tmp_path / "kept.sqlite", [caption("A red bowl.")])
    assert sorted(made.batch["text"].to_pylist()) == sorted(["Mangkuk merah.", "ชามสีแดง"])

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "it ran"),)

    torch.save({"model.shared.weight": Evil()}, folder / "pytorch_model.bin")
    assert convert_weights.main(["nllb", str(folder), str(tmp_path / "evil")]) == 2
    torch.save({}, folder / "pytorch_model.bin")
    assert convert_weights.main(["nllb", str(folder), str(tmp_path / "evil")]) == 2
    said = capsys.readouterr().err
    assert "as tensors alone" in said
    assert "tensor " in said
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"), "damaged weights"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "gemma3"}'), "type 'gemma3'"),
        (lambda folder: (folder / "config.json").write_text("[]"), "expected an NLLB-200 checkpoint"),
        (
            lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
            "no tokenizer files",
        ),
    ],
    ids=["damaged", "another model", "no config", "no tokenizer"],
)
def test_what_is_no_nllb_checkpoint_is_refused(
    checkpoint: Path, tmp_path: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    spoil(folder)
    with pytest.raises(InputError, match=words):
        by_nllb(folder, tmp_path / "kept.sqlite", [caption("A cat.")])
