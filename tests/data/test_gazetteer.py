"""Place names in texts: which count, in which spelling, and what is none."""

import json
import unicodedata
from pathlib import Path

import pytest
from babel import Locale
from hypothesis import given
from hypothesis import strategies as st

import text_filter
from ggez_hub.data import gazetteer, tables

SEA = ("BRN", "IDN", "KHM", "LAO", "MMR", "MYS", "PHL", "SGP", "THA", "TLS", "VNM")


def named(text: str) -> set[str]:
    """The countries that a text names; several that one name stands for with "|" between."""
    return {gazetteer.gazetteer().places[place] for place in gazetteer.find([text]).place}


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("A market in Thailand", "THA"),
        ("thai food", "THA"),
        ("Three Filipinas and two Singaporeans", "PHL SGP"),
        ("Viet Nam, Lao PDR, Burma, East Timor", "VNM LAO MMR TLS"),
        ("Timor-Leste and Timor\u2011Leste", "TLS"),
        ("Kingdom of Cambodia", "KHM"),
        ("Côte d'Ivoire, Cote d’Ivoire", "CIV"),
        ("São Paulo, Sao Paulo, SÃO PAULO", "BRA"),
        (unicodedata.normalize("NFD", "São Paulo"), "BRA"),
        ("İstanbul'da", "TUR"),
        ("Bangkok's streets", "THA"),
        ("a temple near surabaya", "IDN"),
        ("Javanese dancers", "IDN"),
        ("Luang Prabang", "LAO"),
        ("the US and the UK", "USA GBR"),
        ("Scotland, England", "GBR"),
        ("Kuala\n  Lumpur", "MYS"),
        ("masakan khas Jepang", "JPN"),
        ("comida tailandesa de Tailandia", "THA"),
        ("Rumah di Jawa Timur", "IDN"),
        ("ถนนในกรุงเทพมหานคร", "THA"),
        ("ວັດໃນປະເທດລາວ", "LAO"),
        ("វត្តនៅភ្នំពេញ", "KHM"),
        ("မန္တလေးနန်းတော်", "MMR"),
        ("在新加坡吃饭", "SGP"),
        ("曼谷的寺庙", "THA"),
        ("東京タワー", "JPN"),
        ("インドネシアの料理", "IDN"),
        ("태국에서 먹은 음식", "THA"),
        ("சிங்கப்பூரில் உணவு", "SGP"),
        ("вид на Бангкок", "THA"),
        ("مطعم في إندونيسيا", "IDN"),
        ("zero\u200bwidth Thai\u200bland", "THA"),
        ("\ud800 Laos", "LAO"),
    ],
)
def test_names_are_found_in_many_languages_and_spellings(text: str, country: str) -> None:
    assert named(text) == set(country.split())


@pytest.mark.parametrize(
    "text",
    [
        "A nice mobile phone. Nice! Reading a book. Male or female? Bath time. Most of the split orange",
        "Of mice and men in us all, it is so",
        "Roast turkey. Turkey with rice. Roast Turkey With Gravy. A turkey sandwich",
        "fine china and a guinea pig; two Guinea pigs. Chili with polish on a jersey",
        "Chinese New Year, French fries, a German shepherd, a Persian cat, South China Sea",
        "Little India, Chinatown, Victoria, Georgetown, Santa Rosa with Mary and David",
        "Paradise Island, City of Spring, East Coast",
        "Bukan nasi. Kita di Kali Code. Warisan budaya. Bayan ko. Sina Lola at Puno ng Mangga. A family reunion",
        "ネクタイとタイトル",
        "ลาวา",
        "Thais\u0300ian Laosx xLaos Vietnamize",
        "San Jose, Georgia",  # of several countries: of none
        "",
        " \n\t",
        "🍜🥢 123 ___",
    ],
)
def test_everyday_words_phrases_and_names_of_several_places_name_no_country(text: str) -> None:
    assert named(text) == set()


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("Papua New Guinea", "PNG"),
        ("Equatorial Guinea and Guinea-Bissau", "GNQ GNB"),
        ("New Mexico", "USA"),
        ("Vietnamese, not Vietnam's", "VNM"),
        ("Nigerian, in Niger", "NGA NER"),
        ("South Korean", "KOR"),
        ("Dominican Republic", "DOM"),
        ("インドネシア", "IDN"),  # not India, whose name it begins with
        ("Central African Republic", "CAF"),
    ],
)
def test_of_names_within_each_other_the_longest_counts(text: str, country: str) -> None:
    assert named(text) == set(country.split())


@pytest.mark.parametrize(
    ("text", "country"),
    [("in Turkey", "TUR"), ("Istanbul, Turkey", "TUR"), ("off to Bath", "GBR"), ("made in China", "CHN")],
)
def test_a_word_that_is_a_name_as_well_counts_with_a_capital_within_a_sentence(text: str, country: str) -> None:
    assert country in named(text)
    assert country not in named(text.rpartition(" ")[2] + " is a word")


def test_a_language_of_few_countries_stands_for_all_of_them_and_one_of_many_for_none() -> None:
    assert named("a Malay house") == {"MYS|IDN"}
    assert named("English, Arabic and Portugis") == set()


def test_a_part_of_the_world_stands_for_its_countries() -> None:
    assert [set(place.split("|")) for place in named("Southeast Asian food")] == [set(SEA)]
    assert [set(place.split("|")) for place in named("masakan Asia Tenggara")] == [set(SEA)]
    assert named("South American, North America, Asia") == set()


def test_mentions_say_in_which_text_they_stand_and_as_what() -> None:
    found = gazetteer.find(["Hà Nội", None, "", "no place", "from Jakarta to Manila", "x" * gazetteer.CHUNK, "Laos"])
    places = gazetteer.gazetteer().places
    assert found.rows.tolist() == [0, 4, 4, 6]
    assert found.names == ["Hà Nội", "Jakarta", "Manila", "Laos"]
    assert [places[place] for place in found.place] == ["VNM", "IDN", "PHL", "LAO"]
    assert len(gazetteer.find([]).names) == 0


@given(st.lists(st.text(alphabet=st.characters(codec=None)) | st.sampled_from(["Laos", "กรุงเทพ", "İ", "ﬁ", "ß\u0301"])))
def test_any_text_can_be_searched_and_what_is_found_stands_in_it(texts: list[str]) -> None:
    found = gazetteer.find(texts)
    for row, name in zip(found.rows, found.names, strict=True):
        assert name in gazetteer.clean(texts[row])


@given(st.sampled_from(["Laos", "Thailand", "Phnom Penh", "Brazilian"]), st.text(alphabet="abcXYZ é", max_size=5))
def test_a_name_within_a_longer_word_is_none(name: str, around: str) -> None:
    assert named(f"x{name} {name}x") == set()
    assert named(f"({name}), {around}") >= named(name) != set()


def test_the_script_tells_the_language_where_only_one_is_written_so() -> None:
    texts = ["วัดพระแก้ว in TH", "ວັດ", "ဘုရား", "វត្ត", "in กท Latin letters", "寺庙", "храм", "", None, "\ud800", "123"]
    assert gazetteer.written_in(texts) == ["tha", "lao", "mya", "khm", *[None] * 7]


def test_names_are_kept_for_the_next_process_unless_the_file_is_damaged_or_of_another_version(own_home: Path) -> None:
    gazetteer.names.cache_clear()
    made = gazetteer.names()
    kept = own_home / "cache" / "gazetteer.json"
    text = kept.read_text()
    key = json.loads(text)["key"]
    assert gazetteer._read(kept, key) == made
    assert gazetteer._read(kept, "another") is None
    for damaged in ("", "[]", f'{{"key": "{key}"}}', f'{{"key": "{key}", "names": {{"laos": "L"}}}}', text[:-5]):
        kept.write_text(damaged)
        assert gazetteer._read(kept, key) is None


def test_babel_is_left_as_it_was_for_all_else_that_uses_it() -> None:
    before = set(gazetteer._country_names())
    assert Locale("nb").months["format"]["wide"][1] == "januar"  # which it inherits
    assert set(gazetteer._country_names()) == before


@pytest.mark.slow
def test_names_are_made_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GGEZ_HOME", str(tmp_path / "file"))
    gazetteer.names.cache_clear()
    assert gazetteer.names()["laos"] == gazetteer.Name("LAO", "country", gazetteer.ANY)


# The figures of scripts/text_filter.py, rounded down. All rows of SEA-VL are of the region: its precision there says
# nothing, so it is measured on questions about dishes of the whole world.
@pytest.mark.parametrize(
    ("column", "recall", "worst"),
    [("caption_en", 0.53, 0.89), ("caption_native", 0.48, 0.89)],
    ids=["English", "native"],
)
def test_the_text_filter_keeps_its_figures_on_sea_vl(shared: Path, column: str, recall: float, worst: float) -> None:
    figures = text_filter.measure(
        *text_filter.read(shared / "data" / "sea_vl" / "captions.csv", column, "culture_country")
    )
    assert figures["sea"].recall >= recall
    assert min(found.precision for found in figures.values()) >= worst
    assert min(figures[code].precision for code in ("IDN", "SGP", "THA", "PHL", "VNM", "MMR")) >= 0.97


@pytest.mark.parametrize("column", ["prompt_en", "prompt_id_formal", "prompt_th", "prompt_tl", "prompt_su_loma"])
def test_the_text_filter_is_precise_on_questions_about_the_whole_world(shared: Path, column: str) -> None:
    file = shared / "data" / "worldcuisines" / "task1_items.csv"
    rows = [row for _, row in tables.records(file) if row["prompt_type"] == "3"]  # those that name the dish's country
    texts = [row[column].partition("\n1.")[0] for row in rows]
    truth = [set(text_filter.regions.countries_of(row["countries"])) for row in rows]
    figures, said = text_filter.measure(texts, truth)["sea"], text_filter.named(texts)
    right = sum(bool(codes & found.keys()) for codes, found in zip(truth, said, strict=True))
    assert (figures.found, figures.precision) == (57, 1.0)
    assert right >= 0.99 * sum(map(bool, said))
    assert right >= (0.68 if column == "prompt_tl" else 0.9) * len(texts)


def test_texts_about_anything_seldom_name_the_region(shared: Path) -> None:
    texts = [row["prompt"] for _, row in tables.records(shared / "data" / "dpg_bench" / "prompts.jsonl")]
    said = text_filter.named(texts)
    assert sum(map(bool, said)) < 0.06 * len(texts)
    assert [found for found in said if found.keys() & set(SEA)] == [{"SGP": "Singaporean"}]  # "Singaporean dishes"
