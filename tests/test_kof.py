"""The globalization factor: the printed table, and the official file with all its traps (in made-up miniature)."""

import csv
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ggez_hub import kof
from ggez_hub.errors import ConfigError, DependencyError, InputError
from ggez_hub.kof import globalization_factor, home, import_file, lookup
from ggez_hub.registry import load_region

HEADER = ["code", "country", "year", "KOFGI", "KOFIpGIdf", "KOFIpGIdj"]
OLD_CODES = {"AND": "ADO", "ROU": "ROM", "TLS": "TMP", "PSE": "WBG", "COD": "ZAR"}
YEARS = (2022, 2023, 2024)
REGIONS = ("eap", "eca", "lac", "mena", "na", "sa", "ssa", "world")


def made_up(code: str, year: int) -> float:
    """A value that nobody measured: 10..90 with decimals, another one for each country and year."""
    return 10 + int(hashlib.sha256(f"{code}{year}".encode()).hexdigest()[:6], 16) % 8000 / 100 + 0.003


def value(code: str, year: int) -> Any:
    """The file's cell, with the gaps of the official one."""
    if code == "PRK" or (code == "TLS" and year == 2022):
        return None
    if code == "SOM":
        return "NA"
    if code == "LUX" and year == 2023:
        return 100.00000762939453  # 32-bit floats overshoot
    return made_up(code, year)


def official(countries: tuple[str, ...] | None = None) -> list[list[Any]]:
    """Rows as in the official file: long format, old codes, names with accents, aggregate rows at the end."""
    world = countries or load_region("world").countries
    names = {"PRK": "Korea, Dem. People’s Rep.", "NAM": "NA", "CIV": "Côte d'Ivoire"}
    rows: list[list[Any]] = []
    for code in world:
        for year in YEARS:
            rows.append([OLD_CODES.get(code, code), names.get(code, code), year, 50.5, value(code, year), 50.5])
    for code, region in kof.AGGREGATES.items():
        for year in YEARS:
            inside = [value(c, year) for c in load_region(region).countries if c in world] if region else [1.5]
            numbers = [v for v in inside if isinstance(v, float)]
            rows.append([code, "aggregate", year, 50.5, sum(numbers) / len(numbers) if numbers else None, 50.5])
    return rows


def write_csv(path: Path, rows: list[list[Any]], encoding: str = "utf-8", header: list[str] | None = None) -> Path:
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([header or HEADER, *rows])
    return path


def write_xlsx(path: Path, rows: list[list[Any]]) -> Path:
    book = pytest.importorskip("openpyxl").Workbook()
    for row in [HEADER, *rows]:
        book.active.append(row)
    book.save(path)
    return path


def sea_mean(year: int) -> float:
    return sum(made_up(code, year) for code in load_region("sea").kof_countries) / 10


# ---------------------------------------------------------------------------------------------------- the printed table
def test_all_cells_of_table_16(shared: Path) -> None:
    with open(shared / "paper" / "table16_kof_by_region_year.csv", encoding="utf-8") as file:
        cells = [(name.lower(), int(row["year"]), float(cell))
                 for row in csv.DictReader(file) for name, cell in row.items() if name != "year"]  # fmt: skip
    assert len(cells) == 279
    for region, year, printed in cells:
        assert f"{100 * globalization_factor(region, year):.2f}" == f"{printed:.2f}", (region, year)


def test_newest_year_is_the_default_and_the_source_is_told() -> None:
    found = lookup("sea")
    assert (found.value, found.year) == (0.434, 2023)
    assert found.source == "KOFIpGIdf 2025 edition, printed in arXiv 2604.11490 table 16"
    assert globalization_factor("sea") == 0.434


def test_unknown_year_names_the_years_there_are() -> None:
    with pytest.raises(InputError, match="no KOF value for 1990; there are values for 1993 to 2023"):
        globalization_factor("sea", 1990)


def test_unknown_region() -> None:
    with pytest.raises(ConfigError, match="unknown region 'see'"):
        globalization_factor("see")


def test_region_without_kof_says_what_to_do(tmp_path: Path) -> None:
    region = tmp_path / "taiwan.yaml"
    region.write_text("title: Taiwan\ncountries: [TWN]\n")
    with pytest.raises(InputError, match=r"no KOF value\n.*give globalization explicitly.*ggez kof import"):
        globalization_factor(str(region))
    import_file(write_csv(tmp_path / "kof.csv", official()))  # the index has no Taiwan either
    with pytest.raises(InputError, match="give globalization explicitly"):
        globalization_factor(str(region))


def test_values_in_a_region_file_of_ones_own_are_not_called_the_papers(tmp_path: Path) -> None:
    region = tmp_path / "benelux.yaml"
    region.write_text("title: Benelux\ncountries: [BEL, NLD, LUX]\nkof: {2020: 81.0, 2021: 82.0, 2023: 83.0}\n")
    found = lookup(str(region), 2021)
    assert (found.value, found.year) == (0.82, 2021)
    assert "given in the file of region" in found.source
    assert "arXiv" not in found.source
    with pytest.raises(InputError, match="values for 2020 to 2021, 2023"):
        lookup(str(region), 2022)


# ---------------------------------------------------------------------------------------------------------- the regions
def test_regions_are_the_world_banks(shared: Path) -> None:
    with open(shared / "references" / "world_bank_regions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for region in REGIONS:
        expected = {row["iso3"] for row in rows if region in ("world", row["region"].lower())}
        assert set(load_region(region).countries) == expected
        assert len(load_region(region).countries) == len(expected)


def test_southeast_asia_has_eleven_countries_and_ten_in_the_index() -> None:
    sea = load_region("sea")
    assert len(sea.countries) == 11
    assert set(sea.countries) <= set(load_region("eap").countries)
    assert set(sea.countries) - set(sea.kof_countries) == {"TLS"}


# --------------------------------------------------------------------------------------------------------------- import
@pytest.mark.parametrize("kind", ["xlsx", "csv", "csv-cp1252", "csv-bom", "shuffled"])
def test_imported_file_wins_over_the_printed_table(tmp_path: Path, kind: str) -> None:
    rows = official()
    if kind == "xlsx":
        path = write_xlsx(tmp_path / "KOFGI_2026_public.xlsx", rows)
    elif kind == "shuffled":
        path = write_csv(tmp_path / "KOFGI_2026_public.csv", rows[::-1])
    else:
        encoding = {"csv": "utf-8", "csv-cp1252": "cp1252", "csv-bom": "utf-8-sig"}[kind]
        path = write_csv(tmp_path / "KOFGI_2026_public.csv", rows, encoding)
    summary = import_file(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (summary.name, summary.edition, summary.sha256) == (path.name, 2026, digest)
    assert (summary.countries, summary.first_year, summary.last_year) == (201, 2022, 2024)  # PRK and SOM have nothing
    assert summary.warnings == ()
    found = lookup("sea")
    assert found.year == 2024
    assert found.value == pytest.approx(sea_mean(2024) / 100, abs=1e-9)
    assert found.source == f"KOFIpGIdf, imported from {path.name} (sha256 {digest[:12]})"
    with pytest.raises(InputError, match="values for 2022 to 2024"):
        lookup("sea", 2021)  # printed, but of another edition


def test_countries_with_old_codes_gaps_and_overshoot(tmp_path: Path) -> None:
    import_file(write_xlsx(tmp_path / "kof.xlsx", official()))

    def mean_of(*countries: str, year: int) -> float:
        region = tmp_path / "some.yaml"
        region.write_text(f"title: Some\ncountries: [{', '.join(countries)}]\n")
        return 100 * globalization_factor(str(region), year)

    for code in OLD_CODES:
        assert mean_of(code, year=2023) == pytest.approx(made_up(code, 2023))
    # Missing and 'NA' are left out of the mean, not counted as 0.
    assert mean_of("TLS", "IDN", year=2022) == pytest.approx(made_up("IDN", 2022))
    assert mean_of("PRK", "SOM", "KOR", year=2023) == pytest.approx(made_up("KOR", 2023))
    assert mean_of("LUX", year=2023) == 100


def test_aggregate_rows_are_not_countries(tmp_path: Path) -> None:
    import_file(write_csv(tmp_path / "kof.csv", official()))
    region = tmp_path / "wrong.yaml"
    region.write_text("title: Wrong\ncountries: [WLD]\n")
    with pytest.raises(InputError, match="no KOF value"):
        globalization_factor(str(region))


def test_aggregate_rows_check_the_file(tmp_path: Path) -> None:
    rows = official()
    for row in rows:
        if row[0] == "SAS" and row[2] in (2022, 2024):
            row[4] += 0.02 if row[2] == 2022 else 0.5
        if row[0] == "NAC":
            row[4] += 0.005  # rounding
    (warning,) = import_file(write_csv(tmp_path / "kof.csv", rows)).warnings
    assert warning.startswith("SAS: not the mean of the countries of region sa in 2 of 3 years (largest in 2024")


def test_rounded_copy_is_warned_of(tmp_path: Path) -> None:
    rows = [[*r[:4], round(r[4]) if isinstance(r[4], float) else r[4], r[5]] for r in official()]
    warnings = import_file(write_csv(tmp_path / "kof.csv", rows)).warnings
    assert any("whole number" in warning for warning in warnings)


def test_names_that_tell_no_edition(tmp_path: Path) -> None:
    assert import_file(write_csv(tmp_path / "download.csv", official())).edition is None


def test_only_the_needed_values_are_stored(tmp_path: Path) -> None:
    import_file(write_csv(tmp_path / "kof.csv", official()))
    (file,) = home().iterdir()  # nothing temporary is left
    stored = json.loads(file.read_text())
    assert set(stored) == {"name", "edition", "sha256", "countries"}
    assert stored["countries"]["TLS"].keys() == {"2023", "2024"}


def test_data_folder_defaults_to_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GGEZ_HOME", "")
    assert home() == tmp_path / ".local/share/ggez_hub"
    monkeypatch.setenv("GGEZ_HOME", "~/elsewhere")
    assert home() == tmp_path / "elsewhere"


# ------------------------------------------------------------------------------------------------------- unusable files
def change(rows: list[list[Any]], column: int, new: Any) -> list[list[Any]]:
    """The rows with one cell of the first row (row 2 of the file) replaced."""
    rows[0][column] = new
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda: [*official(), *official()[:2]], r"2 bad rows\n  row 647: ABW 2022 for the second time"),
        (lambda: [*official(), ["ROU", "", 2023, 1, 50.5, 1]], "ROU 2023 for the second time"),  # ROM is there already
        (lambda: change(official(), 4, 101), "row 2: KOFIpGIdf '101', expected a number from 1 to 100"),
        (lambda: change(official(), 4, 0), "row 2: KOFIpGIdf '0'"),
        (lambda: change(official(), 4, "43,2"), "row 2: KOFIpGIdf '43,2'"),
        (lambda: change(official(), 4, "inf"), "row 2: KOFIpGIdf 'inf'"),
        (lambda: change(official(), 2, "2022.5"), "row 2: code 'ABW', year '2022.5'"),
        (lambda: change(official(), 2, None), "row 2: code 'ABW', year None"),
        (lambda: change(official(), 0, "NA"), "row 2: code 'NA', year '2022'"),
        (lambda: change(official(), 0, None), "row 2: code None"),
        (lambda: official(load_region("sea").countries), "11 countries only, expected at least 150"),
        (lambda: [], "0 countries only"),
        (lambda: [[*r[:4], None, r[5]] for r in official()], "0 countries only"),
    ],
)
def test_bad_rows_are_named_and_nothing_changes(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_file(write_csv(tmp_path / "kof.csv", rows()))
    assert not home().exists()
    assert lookup("sea").source.startswith("KOFIpGIdf 2025 edition")


def test_many_bad_rows_give_one_short_message(tmp_path: Path) -> None:
    rows = [[*r[:4], "x", r[5]] for r in official()]
    with pytest.raises(InputError, match=f"{len(rows)} bad rows") as caught:
        import_file(write_csv(tmp_path / "kof.csv", rows))
    assert f"and {len(rows) - 10} more" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 15


def test_blank_rows_do_not_matter(tmp_path: Path) -> None:
    rows = official()
    blank = [None] * len(HEADER)
    assert import_file(write_xlsx(tmp_path / "kof.xlsx", [rows[0], blank, *rows[1:], blank, blank])).countries == 201
    path = write_csv(tmp_path / "kof.csv", [[], blank, *change(rows, 4, "x"), []])
    with pytest.raises(InputError, match="1 bad rows\n  row 4:"):  # the row number counts them
        import_file(path)


def test_commas_at_the_end_of_rows_do_not_matter(tmp_path: Path) -> None:
    import_file(write_csv(tmp_path / "kof.csv", [[*row, ""] for row in official()]))
    assert globalization_factor("sea") == pytest.approx(sea_mean(2024) / 100, abs=1e-9)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "kof.csv", official(), header=["Code", "country", "year", "a", "KOFGIdf", "b"])
    with pytest.raises(InputError, match="one column code, KOFIpGIdf; the first row has Code, country, year, a, KOF"):
        import_file(path)
    path = tmp_path / "semicolons.csv"
    path.write_text(";".join(HEADER) + "\n")
    with pytest.raises(InputError, match="comma-separated"):
        import_file(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("kof.xlsx", b"<html>not found</html>", "cannot be read as xlsx"),
        ("kof.xlsx", b"", "cannot be read as xlsx"),
        ("kof.csv", b"", "cannot be read as csv"),
        ("kof.csv", b"\x81\x8d\xff", "cannot be read as csv"),
        ("kof.dta", b"", r"expected a \.xlsx or \.csv file"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_file(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.xlsx: cannot be read: No such file"):
        import_file(tmp_path / "nothing.xlsx")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        import_file(tmp_path)


def test_missing_reader_of_xlsx_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_xlsx(tmp_path / "kof.xlsx", [])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DependencyError, match=r'needs openpyxl\n.*pip install "ggez_hub\[kof\]"'):
        import_file(path)


def test_damaged_import_says_what_to_do(tmp_path: Path) -> None:
    import_file(write_csv(tmp_path / "kof.csv", official()))
    (file,) = home().iterdir()
    for damaged in ("{", "[]", '{"countries": {}}', '{"name": "x", "sha256": "y", "countries": {"IDN": {"a": 1}}}'):
        file.write_text(damaged)
        with pytest.raises(InputError, match=r"kof\.json: not a readable import.*\n.*import FILE` again, or delete"):
            lookup("sea")


def test_a_second_import_replaces_the_first_and_a_failed_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_file(write_csv(tmp_path / "first.csv", official()))
    import_file(write_csv(tmp_path / "second.csv", official()))
    assert "second.csv" in lookup("sea").source

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ggez_hub.kof.os.replace", full)
    with pytest.raises(InputError, match=r"cannot be written: No space left.*\n.*GGEZ_HOME"):
        import_file(write_csv(tmp_path / "third.csv", official()))
    assert "second.csv" in lookup("sea").source
    assert [file.name for file in home().iterdir()] == ["kof.json"]
