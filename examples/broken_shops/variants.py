"""Read the variants, make them, and write README.md.

python -m examples.broken_shops.variants                       # writes README.md
python -m examples.broken_shops.variants last_event_wins DIR   # makes this variant in DIR, as a package with a green suite
"""

import shutil
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
EXAMPLES: Final = HERE.parent
_NOT_COPIED: Final = shutil.ignore_patterns("__pycache__", "*.md", "tests")


@dataclass(frozen=True, slots=True)
class Change:
    """A replacement in a file of the application. The old text occurs once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Variant:
    """A correct application with one mistake."""

    name: str
    base: str
    """The folder of the correct application in `examples`."""
    cause: str
    """What `pytest --psp-explore` calls it."""
    verdict: str
    """`wrong`, or `unsettled` if the books agree all the same."""
    test: str
    """The test of the plain suite that shows it, at this point:"""
    point: str
    story: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Base:
    """A correct application, and the test module that its variants get in place of its own."""

    suite: Path
    module: str


BASES: Final = {
    "shop": Base(HERE / "plain_suite.py", "test_payouts.py"),
    "polling": Base(EXAMPLES / "polling" / "tests" / "test_payroll.py", "test_payroll.py"),
    "safepay": Base(EXAMPLES / "safepay" / "tests" / "test_shop.py", "test_shop.py"),
}


def variants() -> tuple[Variant, ...]:
    """Return all variants, as declared in variants.toml."""
    declared = tomllib.loads((HERE / "variants.toml").read_text(encoding="utf-8"))["variant"]
    return tuple(map(_variant, declared))


def _variant(declared: dict[str, Any]) -> Variant:
    changes = tuple(Change(**change) for change in declared["changes"])
    return Variant(**{"base": "shop", "verdict": "wrong", **declared, "story": declared["story"].strip(), "changes": changes})


def make_base(base: str, folder: Path) -> None:
    """Copy a correct application and its plain tests, as a package, to a folder that does not exist."""
    source = EXAMPLES / base
    shutil.copytree(source, folder, ignore=_NOT_COPIED)
    tests = folder / "tests"
    tests.mkdir()
    for name in ("__init__.py", "conftest.py"):
        shutil.copy(source / "tests" / name, tests / name)
    shutil.copy(BASES[base].suite, tests / BASES[base].module)


def make(variant: Variant, folder: Path) -> None:
    """Make a variant in a folder that does not exist. Raises ValueError if the application lacks a text to replace."""
    make_base(variant.base, folder)
    for change in variant.changes:
        path = folder / change.file
        source = path.read_text(encoding="utf-8")
        if source.count(change.old) != 1:
            raise ValueError(f"{variant.name}: {change.file} has this {source.count(change.old)} times: {change.old}")
        path.write_text(source.replace(change.old, change.new), encoding="utf-8")


def readme(all_variants: Iterable[Variant]) -> str:
    """Return the text of README.md."""
    stories = [f"### {_title(one.name)}\n\n`{one.name}`\n\n{one.story}\n\n{_facts(one)}\n" for one in all_variants]
    return _HEAD + "\n".join(stories)


def _title(name: str) -> str:
    return name.replace("_", " ").replace("psps", "PSP's").capitalize().replace("psp's", "PSP's")


def _facts(variant: Variant) -> str:
    cause = variant.cause.replace("_", " ")
    application = "" if variant.base == "shop" else f" In [{variant.base}](../{variant.base})."
    return f"Found at `{variant.point}` of `{variant.test}`; the report calls it *{cause}*.{application}"


_HEAD: Final = """\
# Broken shops

Each of these applications is [the shop](../shop/README.md), [the payroll](../polling) or [the shop on the Safepay
adapter](../safepay/README.md) with one mistake, as they happen in real integrations. All pass their tests: those of a team that
tests what it thought of. `pytest --psp-explore` finds them.

Make one, and explore it:

<!-- not run: takes minutes -->
```sh
python -m examples.broken_shops.variants last_event_wins /tmp/broken
pytest /tmp/broken
pytest /tmp/broken --psp-explore --psp-report-file evidence.html
```

`--psp-point` tries one point only, such as the one that each story names.

This page is written from `variants.toml`, which also has the changed code: `python -m examples.broken_shops.variants`.

## The stories

"""


def main(arguments: list[str]) -> None:
    """Write README.md, or make the variant that the arguments name."""
    if not arguments:
        (HERE / "README.md").write_text(readme(variants()), encoding="utf-8")
        return
    name, folder = arguments
    make(next(one for one in variants() if one.name == name), Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
