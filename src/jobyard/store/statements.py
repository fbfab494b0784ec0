"""The SQL of the product, a statement a file; `statement("claim")` is the text of `sql/claim.sql`."""

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    return files("jobyard.store").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def statement_names() -> list[str]:
    """Every statement there is, for the tests that hold each to its plan."""
    folder = files("jobyard.store").joinpath("sql")
    return sorted(
        entry.name.removesuffix(".sql") for entry in folder.iterdir() if entry.name.endswith(".sql")
    )
