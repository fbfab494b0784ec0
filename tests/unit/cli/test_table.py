from __future__ import annotations

import pytest
from rich.cells import cell_len

from jobyard.cli.table import MEASURED_ROWS, Column, Row, lines, shortened

ID = "0199aaaa-0000-7000-8000-000000000000"
COLUMNS = (Column("ID", whole=True), Column("TYPE"), Column("QUEUE"), Column("AGE", whole=True, right=True))


def drawn(*rows: Row, width: int = 80) -> list[str]:
    return "\n".join(line.plain for line in lines(COLUMNS, rows, width)).splitlines()


def row(type_: str = "email", queue: str = "default", age: str = "3 s", **more: str) -> Row:
    return Row((ID, type_, queue, age), {}, **more)


def test_columns_are_as_wide_as_what_is_in_them_and_numbers_stand_right() -> None:
    assert drawn(row(), row("report", age="12 min")) == [
        "ID                                    TYPE    QUEUE       AGE",
        f"{ID}  email   default     3 s",
        f"{ID}  report  default  12 min",
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_what_is_long_loses_its_middle_and_the_id_stays_whole(width: int) -> None:
    found = drawn(row("send-the-monthly-newsletter", "a-queue-of-a-very-long-name-indeed"), width=width)
    assert max(map(cell_len, found)) <= width
    assert found[1].startswith(ID)
    assert ("…" in found[1]) == (width < 110)
    assert found[1].split()[1][0] == "s"
    assert found[1].split()[1][-1] == "r"


@pytest.mark.parametrize(
    ("width", "next_", "shown"),
    [
        (58, "in 3 s", ["ID", "TRIES", "NEXT", "TYPE"]),
        (57, "in 3 s", ["ID", "TRIES", "TYPE"]),
        (50, "in 3 s", ["ID", "TRIES", "TYPE"]),
        (49, "in 3 s", ["ID", "TYPE"]),
        (40, "in 3 s", ["ID", "TYPE"]),
        (60, "", ["ID", "TRIES", "TYPE"]),
    ],
)
def test_a_column_that_may_be_left_out_is_there_where_it_says_something_and_takes_no_room_from_others(
    width: int, next_: str, shown: list[str]
) -> None:
    optional = (Column("TRIES", optional=True), Column("NEXT", optional=True))
    columns = (Column("ID", whole=True), *optional, Column("TYPE"))
    header, cells = (line.plain for line in lines(columns, [Row((ID, "2/5", next_, "email"), {})], width))
    assert header.split() == shown
    assert ("2/5" in cells, "in 3 s" in cells) == ("TRIES" in shown, "NEXT" in shown)


def test_the_longest_gives_way_first() -> None:
    [_, line] = drawn(row("x" * 200, "short"))
    assert "short" in line


def test_a_terminal_too_narrow_for_an_id_still_gets_it_whole() -> None:
    assert ID in drawn(row(), width=20)[1]


def test_wide_characters_count_as_two() -> None:
    found = drawn(row("注文の確認メールを送信する仕事です", "Grüße"), row())
    assert max(map(cell_len, found)) <= 80
    assert len({cell_len(line) for line in found}) == 1


@pytest.mark.parametrize("text", ["abcdefghij", "注文の確認メール", ""])
def test_a_shortened_text_is_never_wider_than_asked(text: str) -> None:
    for width in range(25):
        assert cell_len(shortened(text, width)) <= max(width, 1)
    assert shortened(text, 25) == text


def test_a_very_long_cell_is_shortened_in_no_time() -> None:
    assert len(drawn(row("x" * 1_000_000))[1]) <= 80


def test_a_note_wraps_on_a_few_lines_and_a_block_is_whole() -> None:
    found = drawn(row(note="n" * 500), row(block="line 1\n" + "b" * 100))
    note = [line for line in found if line.startswith(("  nnn", "  …"))]
    assert 1 < len(note) < 6
    assert all(len(line) == 80 for line in note[:-1])
    assert sum(line.count("…") for line in note) == 1, "what is too long for that loses its middle"
    assert found[-2:] == ["  line 1", "  " + "b" * 100]


def test_what_would_drive_the_terminal_is_written_out() -> None:
    evil = "a\x1b[2J\nb\u202e"
    found = drawn(row(evil, evil, note=evil), Row((ID, evil, "", ""), {}, block=f"1\n{evil}"), width=200)
    assert len(found) == 7
    assert not {"\x1b", "\u202e"} & set("".join(found))
    assert r"a\x1b[2J\nb\u202e" in found[1]


def test_a_table_of_any_length_is_drawn_as_it_comes() -> None:
    taken = 0

    def rows() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield row("x") if taken <= MEASURED_ROWS else row("longer than was measured", age="59 min")

    table = lines(COLUMNS, rows(), 80)
    for _ in range(MEASURED_ROWS + 2):
        line = next(table)
    assert taken == MEASURED_ROWS + 1
    assert line.plain.split()[1] == "lo…d"
    assert line.plain.endswith("59 min")


def test_without_rows_there_is_no_header() -> None:
    assert drawn() == []
