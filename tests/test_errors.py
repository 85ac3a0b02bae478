from dermaflux.errors import quoted


def test_quotes_stay_short_and_hold_no_control_characters():
    bomb = [1]
    for _ in range(40):
        bomb = [bomb] * 10  # 10^40 numbers when written out
    for value in ("a\x1b[2J\n" * 1000, b"\0" * 10**6, 10**6000, bomb, {"k": "\r\n" * 500}):
        text = quoted(value)
        assert len(text) <= 200
        assert text.isprintable()
    assert quoted("Läsion 1") == "'Läsion 1'"
