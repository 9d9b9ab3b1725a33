"""Where a value goes in a syntax tree: which expressions carry it on, and which constants are spelt out."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from security_audit.flow import Flow, constant


def expression(code: str) -> ast.expr:
    return ast.parse(code, mode="eval").body


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("'a'", "a"), ("b'a'", "a"), ("'a' + 'b'", "ab"), ("'a' + x", None), ("f'a'", "a"), ("f'a{x}'", None),
        ("'-'.join(['a', 'b'])", "a-b"), ("'-'.join(('a', x))", None), ("sep.join(['a', 'b'])", None),
        ("'-'.join(parts)", None), ("'-'.join()", None), ("'a'.encode()", "a"), ("SecretStr('a')", "a"),
        ("Field(default='a')", "a"), ("Field()", None), ("1", None), ("x", None), ("len('a')", None),
    ],
)  # fmt: skip
def test_a_constant_is_read_in_every_spelling(code: str, value: str | None) -> None:
    assert constant(expression(code)) == value


def test_a_number_is_no_text_and_a_text_no_number() -> None:
    assert constant(expression("8"), int) == 8
    assert constant(expression("f'8'"), int) is None
    assert constant(expression("'-'.join(['8'])"), int) is None


CARRIES = (
    *("key", "key.text", "key[0]", "key[:9]", "key[2:]", "await key", "(new := key)", "f'{key}'", "x or key"),
    *("x + key", "key + x", "key if x else y", "x if y else key", "{x: key}", "[key]", "(x, key)", "{key}", "[*key]"),
    *("str(key)", "key.strip()", "key.encode()", "str(object=key)", "'-'.join([key])"),
)
DROPS = (
    *("x", "key_id", "key.status_code", "key[:8]", "key[:0]", "key[-4:]", "len(key)", "jwt.encode(x, key)"),
    *("Box(key)", "lambda: key", "x if key else y", "{key: x}", "key == x", "not key", "1"),
)


@pytest.mark.parametrize("code", CARRIES + DROPS)
def test_an_expression_carries_a_value_or_drops_it(code: str) -> None:
    flow = Flow(ast.parse(""), lambda node: False, {"key"})
    assert flow.hot(expression(code)) is (code in CARRIES)


@pytest.mark.parametrize(
    ("given", "code", "carries"),
    [
        ({"built": True}, "Box(key)", True),
        ({"built": True}, "box(key)", False),
        ({"carriers": ["box"]}, "box(key)", True),
        ({"cut": True}, "key[:200]", False),
        ({"cut": True}, "key[2:]", True),
        ({"parts": ["text"]}, "key.text", True),
        ({"parts": ["text"]}, "key.title", False),
    ],
)
def test_what_carries_a_value_can_be_said(given: dict[str, Any], code: str, carries: bool) -> None:
    assert Flow(ast.parse(""), lambda node: False, {"key"}, **given).hot(expression(code)) is carries


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("a = key\nb = a", {"key", "a", "b"}),
        ("b = a\na = key", {"key", "a", "b"}),
        ("for a in key: pass", {"key", "a"}),
        ("a, (b, c) = key", {"key", "a", "b", "c"}),
        ("a: str = key", {"key", "a"}),
        ("a: str", {"key"}),
        ("self.a = key", {"key"}),
        ("a = len(key)", {"key"}),
        ("def inner():\n    a = key", {"key"}),
    ],
)
def test_names_that_are_given_a_value_carry_it(code: str, names: set[str]) -> None:
    assert Flow(ast.parse(code), lambda node: False, {"key"}).names == names


def test_a_dictionary_carries_a_value_under_its_own_name_alone() -> None:
    flow = Flow(ast.parse("config = {'key': key, 'model': 'm', **more}"), lambda node: False, {"key"})
    assert flow.hot(expression("config['key']"))
    assert flow.hot(expression("config['other']"))
    assert not flow.hot(expression("config['model']"))


def test_what_is_hot_is_for_the_source_to_say() -> None:
    flow = Flow(ast.parse("a = read()"), lambda node: isinstance(node, ast.Call))
    assert flow.hot(expression("a"))
    assert not flow.hot(expression("b"))
