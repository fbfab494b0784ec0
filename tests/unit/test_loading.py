"""A module of handlers that cannot be used is told with the line that is to be mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobyard.loading import import_handlers
from jobyard.process import StartError


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "import no_such_module_at_all",
            "ModuleNotFoundError: No module named 'no_such_module_at_all' ({file}:1)",
        ),
        ("import os\n\nos.environ['NO_SUCH_VARIABLE']", "KeyError: 'NO_SUCH_VARIABLE' ({file}:3)"),
        ("def f(:\n", "SyntaxError: invalid syntax (NAME.py, line 1)"),
        ("import json\njson.loads('')", "JSONDecodeError: Expecting value"),
    ],
)
def test_what_a_module_raises_when_it_is_imported_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"handlers_{abs(hash(code))}"
    (file := tmp_path / f"{name}.py").write_text(code)
    with pytest.raises(StartError) as told:
        import_handlers(name)
    expected = said.replace("NAME", name).replace("{file}", str(file))
    assert str(told.value).startswith(f"importing {name!r} failed: {expected}")


def test_a_module_that_is_not_there_is_told_apart_from_one_that_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartError, match=rf"there is no module 'nowhere'; .* imported from {tmp_path}"):
        import_handlers("nowhere.deeper")


def test_who_names_the_file_is_told_the_name_of_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop_by_file.py").write_text("")
    with pytest.raises(StartError, match="give its name without the end: 'shop_by_file'"):
        import_handlers("shop_by_file.py")


def test_two_handlers_of_one_type_are_told_with_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (file := tmp_path / "doubled_handlers.py").write_text(
        "from jobyard.worker.handlers import Handlers\nh = Handlers()\n"
        "def one(payload: dict) -> None: ...\ndef two(payload: dict) -> None: ...\nh.add('t', one)\nh.add('t', two)\n"
    )
    with pytest.raises(StartError, match="two handlers for type 't'") as told:
        import_handlers("doubled_handlers")
    assert f"one ({file}:3) and two ({file}:4)" in str(told.value)
