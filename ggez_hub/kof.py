"""The globalization factor of a region, from the KOF Globalisation Index (column KOFIpGIdf: interpersonal, de facto).

Index: Gygli, Haelg, Potrafke and Sturm 2019, doi 10.1007/s11558-019-09344-2; data: KOF, ETH Zurich,
https://kof.ethz.ch/en/forecasts-and-indicators/indicators/kof-globalisation-index.html

The regions carry the means that the paper prints (arXiv 2604.11490, table 16). The index itself may not be passed on,
so whoever wants a newer edition downloads it and imports the file; from then on the imported values win. Each edition
estimates the whole history anew, up to 19 points off for a country, so a region never mixes editions.
"""

import csv
import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ggez_hub.errors import DependencyError, InputError
from ggez_hub.registry import load_region

COLUMN = "KOFIpGIdf"
PRINTED = "KOFIpGIdf 2025 edition, printed in arXiv 2604.11490 table 16"
PRINTED_REGIONS = ("eap", "eca", "lac", "mena", "na", "sa", "sea", "ssa", "world")

# Old World Bank codes in the official file, and what ISO 3166 calls these countries.
ISO_CODES = {"ADO": "AND", "ROM": "ROU", "TMP": "TLS", "WBG": "PSE", "ZAR": "COD"}
# Rows of the official file that are means over countries, and the region of ours that has the same countries.
AGGREGATES = {"EAS": "eap", "ECS": "eca", "LCN": "lac", "MEA": "mena", "NAC": "na", "SAS": "sa", "SSF": "ssa",
              "WLD": "world", "HIC": None, "LIC": None, "LMC": None, "UMC": None}  # fmt: skip
MISSING = ("", "NA", "N/A", "NaN", "nan", ".", "..")  # what people and programs write for an empty cell
MIN_COUNTRIES = 150  # the editions seen have 196 in their last year; far fewer is not the index

Table = dict[str, dict[int, float]]  # code: year: value


@dataclass(frozen=True)
class KofValue:
    """A globalization factor and where it comes from."""

    value: float  # 0..1
    source: str
    year: int


@dataclass(frozen=True)
class KofImport:
    """What an import found."""

    name: str
    edition: int | None  # None where the file name does not tell
    sha256: str
    countries: int
    first_year: int
    last_year: int
    warnings: tuple[str, ...]


def home() -> Path:
    """The user's data folder: ``$GGEZ_HOME``, or else ``~/.local/share/ggez_hub``. It need not exist."""
    return Path(os.environ.get("GGEZ_HOME") or "~/.local/share/ggez_hub").expanduser()


def globalization_factor(region: str, year: int | None = None) -> float:
    """The weight of global quality in a region's GRP (section 3.2; the paper's alpha, not our merge weight alpha).

    Args:
        region: Name of a region, or the path of its YAML file.
        year: Year of the KOF value; None is the newest.

    Returns:
        Mean of KOFIpGIdf over the region's countries, divided by 100: 0..1. Southeast Asia 2023 is 0.434.

    Raises:
        ConfigError: Unknown region.
        InputError: No KOF value for the region, or not for that year.
    """
    return lookup(region, year).value


def lookup(region: str, year: int | None = None) -> KofValue:
    """The globalization factor of a region with its source and year. Arguments and errors as globalization_factor."""
    values, source = series(region)
    found = max(values) if year is None else year
    if found not in values:
        raise InputError(
            f"region {region!r} has no KOF value for {found}; there are values for {_spans(values)}",
            "choose one of these years, or `ggez kof import FILE` with a newer official KOF file",
        )
    return KofValue(round(values[found] / 100, 12), source, found)  # rounded: 58.82 / 100 is 0.5882000000000001


def series(region: str) -> tuple[dict[int, float], str]:
    """All KOF values of a region by year, 0..100, and their source. Argument and errors as globalization_factor."""
    details = load_region(region)
    values, source = _imported_means(details.kof_countries or details.countries)
    if not values:
        values = details.kof
        source = PRINTED if region in PRINTED_REGIONS else f"{COLUMN}, given in the file of region {region}"
    if not values:
        raise InputError(
            f"region {region!r} has no KOF value",
            "give globalization explicitly (0..1), or `ggez kof import FILE` with the official KOF file",
        )
    return values, source


def imported() -> tuple[Table, str]:
    """The imported values of every country by year, 0..100, and their source; both empty without an import.

    Raises:
        InputError: The import cannot be read.
    """
    path = home() / "kof.json"
    if not path.is_file():
        return {}, ""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        table = {code: {int(year): float(v) for year, v in row.items()} for code, row in stored["countries"].items()}
        source = f"{COLUMN}, imported from {stored['name']} (sha256 {stored['sha256'][:12]})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise InputError(f"{path}: not a readable import: {err}", "`ggez kof import FILE` again, or delete it") from err
    return table, source


def _imported_means(countries: Sequence[str]) -> tuple[dict[int, float], str]:
    """Plain mean per year over the countries that have a value in it, and the source; empty without an import."""
    table, source = imported()
    return _means(table, countries), source


def _means(table: Table, countries: Sequence[str]) -> dict[int, float]:
    rows = [table[code] for code in countries if code in table]
    years = sorted({year for row in rows for year in row})
    by_year = {year: [row[year] for row in rows if year in row] for year in years}
    return {year: math.fsum(values) / len(values) for year, values in by_year.items()}


def _spans(years: Mapping[int, object]) -> str:
    """Years as people write them: ``1993 to 1995, 1997``."""
    spans: list[list[int]] = []
    for year in sorted(years):
        if spans and year == spans[-1][1] + 1:
            spans[-1][1] = year
        else:
            spans.append([year, year])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans)


# --------------------------------------------------------------------------------------------------------------- import
def import_file(path: str | Path) -> KofImport:
    """Reads an official KOF file and keeps its KOFIpGIdf values in the user's data folder, where lookup finds them.

    Args:
        path: The .xlsx from kof.ethz.ch, or a .csv (comma-separated, UTF-8 or Windows-1252) with the same header,
            at least ``code``, ``year`` and ``KOFIpGIdf`` (1..100), one row per country and year.

    Returns:
        What was found. Its warnings tell of regional means in the file that are not the means of the region's
        countries, and of values that were rounded to whole numbers.

    Raises:
        InputError: Not such a file: every bad row is counted and the first are named. Nothing is stored then.
        DependencyError: A library that reads the file is missing.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as err:
        raise InputError(f"{path}: cannot be read: {err.strerror or err}") from err
    countries, aggregates = _table(_rows(path, content), path)
    if len(countries) < MIN_COUNTRIES:
        raise InputError(
            f"{path}: {COLUMN} has values for {len(countries)} countries only, expected at least {MIN_COUNTRIES}",
            "import the whole official file, not a selection from it",
        )
    years = {year for row in countries.values() for year in row}
    edition = re.search(r"KOFGI_(\d{4})", path.name)
    summary = KofImport(
        name=path.name,
        edition=int(edition[1]) if edition else None,
        sha256=hashlib.sha256(content).hexdigest(),
        countries=len(countries),
        first_year=min(years),
        last_year=max(years),
        warnings=tuple(_warnings(countries, aggregates)),
    )
    _store({"name": summary.name, "edition": summary.edition, "sha256": summary.sha256, "countries": countries})
    return summary


def _rows(path: Path, content: bytes) -> Iterator[tuple[int, Any, Any, Any]]:
    """Yields (row number as a spreadsheet shows it, code, year, value), as they stand in the file."""
    kind = path.suffix.lower()
    if kind not in (".xlsx", ".csv"):
        raise InputError(f"{path}: expected a .xlsx or .csv file", "download the .xlsx from kof.ethz.ch")
    try:
        pandas = import_module("pandas")
        if kind == ".xlsx":
            import_module("openpyxl")  # pandas would miss it later, and less clearly
    except ImportError as err:
        raise DependencyError(f"reading {path.name} needs {err.name}", 'pip install "ggez_hub[kof]"') from err
    # 'NA' is text (a region's name in these files), never a missing cell; objects keep cells as they are.
    options: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "dtype": object}
    try:
        if kind == ".xlsx":
            frame = pandas.read_excel(io.BytesIO(content), engine="openpyxl", **options)
        else:
            # Blank lines stay, so that row numbers are those of the file.
            text = io.StringIO(_decoded(content))
            frame = pandas.read_csv(text, skip_blank_lines=False, index_col=False, **options)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, csv.Error) as err:
        raise InputError(f"{path}: cannot be read as {kind[1:]}: {err}", "download the .xlsx from kof.ethz.ch") from err
    frame.columns = [str(name).strip() for name in frame.columns]
    lacking = [name for name in ("code", "year", COLUMN) if list(frame.columns).count(name) != 1]
    if lacking:
        raise InputError(
            f"{path}: expected exactly one column {', '.join(lacking)}; the first row has {', '.join(frame.columns)}",
            "the official file has the columns code, country, year and then the indices, comma-separated in a .csv",
        )
    columns = [frame[name].where(frame[name].notna(), None) for name in ("code", "year", COLUMN)]
    yield from zip(range(2, len(frame) + 2), *columns, strict=True)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")  # what Excel writes in Western Europe


def _table(rows: Iterator[tuple[int, Any, Any, Any]], path: Path) -> tuple[Table, Table]:
    """Values by country, and those of the aggregate rows; all bad rows in one InputError."""
    countries: Table = {}
    aggregates: Table = {}
    problems: list[str] = []
    seen: Counter[tuple[str, int]] = Counter()
    for number, raw_code, raw_year, raw_value in rows:
        if raw_code is None and raw_year is None:
            continue  # blank, as at the end of re-saved sheets
        code = str(raw_code or "").strip()
        code = ISO_CODES.get(code, code)
        year = _number(raw_year)
        if not re.fullmatch("[A-Z]{3}", code) or year is None or not 1900 <= year <= 2100 or year % 1:
            problems.append(f"row {number}: code {raw_code!r}, year {raw_year!r}")
            continue
        seen[code, int(year)] += 1
        if seen[code, int(year)] == 2:
            problems.append(f"row {number}: {code} {int(year)} for the second time")
        if raw_value is None or str(raw_value).strip() in MISSING:
            continue
        value = _number(raw_value)
        # The official values went through 32-bit floats: a 100 is 100.0000076 there.
        if value is None or not 1 - 1e-3 <= value <= 100 + 1e-3:
            problems.append(f"row {number}: {COLUMN} {raw_value!r}, expected a number from 1 to 100")
            continue
        kept = aggregates if code in AGGREGATES else countries
        kept.setdefault(code, {})[int(year)] = min(max(value, 1.0), 100.0)
    if problems:
        shown = "\n  ".join(problems[:10]) + (f"\n  and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise InputError(f"{path}: {len(problems)} bad rows\n  {shown}", "import the official file, as downloaded")
    return countries, aggregates


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _warnings(countries: Table, aggregates: Table) -> Iterator[str]:
    """What makes the file doubtful, though it can be used."""
    if all(value.is_integer() for row in countries.values() for value in row.values()):
        yield "every value is a whole number: this copy was rounded; the official .xlsx has decimals"
    for code, region in AGGREGATES.items():
        if region is None:
            continue
        ours, theirs = _means(countries, load_region(region).countries), aggregates.get(code, {})
        off = {year: abs(ours[year] - theirs[year]) for year in ours.keys() & theirs.keys()}
        bad = {year for year, gap in off.items() if gap > 1e-2}
        if bad:
            worst = max(bad, key=lambda year: (off[year], year))
            yield (
                f"{code}: not the mean of the countries of region {region} in {len(bad)} of {len(off)} years "
                f"(largest in {worst}: {theirs[worst]:.2f} in the file, {ours[worst]:.2f} from countries)"
            )


def _store(content: Mapping[str, object]) -> None:
    """Writes under a temporary name first: a reader sees the old file or the new one, never half of it."""
    target = home() / "kof.json"
    temporary = target.with_name(f"kof.json.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(content), encoding="utf-8")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as err:
        problem = err.strerror or err
        raise InputError(f"{target}: cannot be written: {problem}", "set GGEZ_HOME to another folder") from err
