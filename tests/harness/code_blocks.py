"""The fenced code blocks of a Markdown page, with what the page's source says about running them.

An HTML comment right before a block, invisible on the page, says what is special about it:

- `<!-- not run: needs Docker -->`: the block is only checked for mistakes in its syntax; the reason is required;
- `<!-- second terminal -->`: the block keeps running while the page goes on; `<!-- second terminal: port 9000 -->` also waits
  until something listens on the port, which is a free one in the test, everywhere on the page;
- `<!-- exit code 4 -->`: a command of the block, or the script, ends with this exit code.

A `text` block is the output of the block before it, where … matches any text in a line.
"""

import json
import re
import shutil
import subprocess
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).parent.parent.parent
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_ALIASES: Final = {"bash": "sh", "shell": "sh", "py": "python", "yml": "yaml", "js": "javascript", "node": "javascript"}
_BLOCK: Final = re.compile(
    r"(?P<before>(?:^[ \t]*<!--[^\n]*-->[ \t]*\n(?:[ \t]*\n)?)*)"
    r"^(?P<indent>[ \t]*)(?P<fence>```+|~~~+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_MARKER: Final = re.compile(r"<!--\s*(not run|second terminal|exit code)\b:?\s*(.*?)\s*-->")
_FILE: Final = re.compile(r"\A(?:#|//)\s*([\w./-]+\.(?:py|toml|ya?ml|mjs|js|java|go|php|rb|csv))\s*$", re.MULTILINE)
_COMMANDS: Final = {
    "javascript": ("node", ".mjs"),
    "java": ("java", ".java"),
    "go": ("go run", ".go"),
    "php": ("php", ".php"),
    "ruby": ("ruby", ".rb"),
}
"""Other languages → how to run a file, and its suffix."""
OTHER_LANGUAGES: Final = tuple(_COMMANDS)


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    line: int
    kind: str
    """Its language; `text` for expected output."""
    text: str
    not_run: str | None = None
    """Why it is not run; None if it is."""
    in_second_terminal: bool = False
    port: str = ""
    exit_code: int = 0

    @property
    def file(self) -> str | None:
        """The file that a comment in its first line names, such as `# test_payouts.py`."""
        found = _FILE.match(self.text)
        return found[1] if found else None

    @property
    def place(self) -> str:
        """Where the block is, for messages."""
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks of a page in order."""
    source = page.read_text(encoding="utf-8")
    return [_block(page, source, found) for found in _BLOCK.finditer(source)]


def _block(page: Path, source: str, found: re.Match[str]) -> Block:
    markers = dict(_MARKER.findall(found["before"]))
    kind = (re.split(r"[\s{]", found["info"].strip(), maxsplit=1) or [""])[0]
    return Block(
        page=page.relative_to(ROOT).as_posix(),
        line=source.count("\n", 0, found.start("fence")) + 1,
        kind=_ALIASES.get(kind, kind),
        text=textwrap.dedent(found["text"]),
        not_run=markers.get("not run"),
        in_second_terminal="second terminal" in markers,
        port=markers.get("second terminal", "").removeprefix("port "),
        exit_code=int(markers.get("exit code", 0)),
    )


def mistake_in(block: Block) -> str | None:
    """Return what is wrong with the syntax of a block, or None. Languages that this machine does not know are not checked."""
    try:
        match block.kind:
            case "python":
                compile(block.text, block.place, "exec", flags=0x2000, dont_inherit=True)  # top-level await is allowed
            case "json":
                json.loads(block.text)
            case "toml":
                tomllib.loads(block.text)
            case "yaml":
                list(yaml.safe_load_all(block.text))
            case "sh":
                return _check(["bash", "-n"], block.text)
            case "javascript" if shutil.which("node"):
                return _check(["node", "--check", "--input-type=module", "-"], block.text)
    except (SyntaxError, ValueError, yaml.YAMLError) as error:
        return str(error)
    return None


def _check(command: list[str], text: str) -> str | None:
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return result.stderr if result.returncode else None


def command_of(kind: str) -> tuple[list[str], str] | None:
    """Return the command that runs a file in another language, and the file's suffix; None if it is not installed."""
    command, suffix = _COMMANDS[kind]
    words = command.split()
    return (words, suffix) if shutil.which(words[0]) else None


def first_missing_line(output: str, expected: str) -> str | None:
    """Return the first line of `expected` that `output` does not contain in this order, or None if it contains all."""
    position = 0
    for line in expected.splitlines():
        pattern = "[^\n]*".join(map(re.escape, line.split("…")))
        match = re.compile(f"^{pattern}\r?$", re.MULTILINE).search(output, position)
        if match is None:
            return line
        position = match.end()
    return None
