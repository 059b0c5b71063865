"""What a distribution needs beyond pyproject.toml: the records it brings, and addresses found when it is built.

README.md links to files beside it. In a wheel these links lead to where this copy of the repository lives, if that is
known (``book/_ext/origin.py``); else the texts stay and the links go.
"""

import os
import re
import shutil
import sys
from email import message_from_string
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "book/_ext"))
import origin  # noqa: E402 - it is no part of the package


class BuildWithRecords(build_py):
    """Copies what is published in ``data`` into the package; an editable install reads it where it is."""

    def run(self):
        """Build the package, then add the data."""
        super().run()
        for folder in () if self.editable_mode else ("records", "published"):
            target = Path(self.build_lib) / "aliasing/data" / folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / "data" / folder, target, ignore=shutil.ignore_patterns(".*"))


def absolute(text, known):
    """The Markdown ``text`` with links to files of the repository made absolute, or without them."""

    def replace(match):
        image, label, path = match.groups()
        if re.match(r"[a-z]+:|#", path):
            return match[0]
        if image:
            address = known.to("raw", path)
            return f"![{label}]({address})" if address else ""
        address = known.to("file", path)
        return f"[{label}]({address})" if address else label

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", replace, text)


def described():
    """The long description and the addresses: of a checkout as found, of a source archive as when that was made."""
    archived = ROOT / "PKG-INFO"
    if archived.exists():
        known = message_from_string(archived.read_text(encoding="utf-8"))
        return known.get_payload(), dict(line.split(", ", 1) for line in known.get_all("Project-URL", []))
    known = origin.find(ROOT, os.environ)
    urls = {name: url for name, url in {"Source": known.source, "Book": known.site}.items() if url}
    return absolute((ROOT / "README.md").read_text(encoding="utf-8"), known), urls


if __name__ == "__main__":
    TEXT, URLS = described()
    setup(
        cmdclass={"build_py": BuildWithRecords},
        long_description=TEXT,
        long_description_content_type="text/markdown",
        project_urls=URLS,
    )
