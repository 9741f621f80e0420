"""Write a page in the format that is asked for. A format's module is loaded when it writes."""

from importlib import import_module

from probe.report.formats.cells import Page

TERMINAL, HTML = "terminal", "html"
# Name, as --format has it -> the module whose ``write`` makes a page of it.
FORMATS = {
    TERMINAL: "terminal",
    "markdown": "markdown",
    "latex": "latex",
    "csv": "csv_file",
    HTML: "html",
    "json": "json_file",
}
ENDINGS = {  # of a file -> its format
    **{".md": "markdown", ".tex": "latex", ".csv": "csv"},
    **{".html": HTML, ".htm": HTML, ".json": "json"},
}


def write(page: Page, name: str = TERMINAL) -> str:
    """A page as text that ends in a newline.

    Args:
        page: what a command says.
        name: one of FORMATS.

    Raises:
        KeyError: there is no such format.
    """
    text = import_module(f"{__package__}.{FORMATS[name]}").write(page)
    return text.rstrip("\n") + "\n"
