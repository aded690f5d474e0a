"""Numbers of things in sentences."""


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as `1 fault` or `1,204 faults`. `plural` is for nouns that do not just add an s."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
