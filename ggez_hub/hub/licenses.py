"""Which license a model may be given, by the licenses of what it was made from. No legal advice: a guard for slips."""

# By the names that the Hub gives them. Any license may be declared on top of these.
PERMISSIVE = {
    "afl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0",
    "c-uda", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc0-1.0", "cdla-permissive-1.0",
    "cdla-permissive-2.0", "isc", "mit", "ncsa", "odc-by", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
}  # fmt: skip


def conflicts(key: str, given: str | None, declared: str) -> list[str]:
    """Why a model may not carry the declared license; empty if it may.

    Args:
        key: The recipe's key that names the license, for the message.
        given: The license of the base or of the data, as the Hub names it; None = not stated.
        declared: The license on the card.

    Returns:
        At most one sentence.
    """
    license_, declared = (given or "").lower(), declared.lower()
    if not license_:
        return [f"{key} is not stated"]
    if "-nd" in license_:
        return [f"{key} {given} allows no changed versions"]
    if license_ == declared or license_ in PERMISSIVE:
        return []
    if declared == "other":  # its own text, which only a person can compare
        return []
    if "-nc" in license_ and "-sa" not in license_:
        return [] if "-nc" in declared else [f"{key} {given} forbids commercial use, card.license {declared} does not"]
    return [f"{key} {given} goes on: card.license has to be {license_} as well, or other, not {declared}"]
