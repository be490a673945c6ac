"""What lies beside docs/ becomes part of the site: the benchmarks, so that pages may link to them. A hook of MkDocs."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds benchmarks/*.md as pages and benchmarks/*.py as files."""
    for file in sorted([*BENCHMARKS.glob("*.md"), *BENCHMARKS.glob("*.py")]):
        files.append(File.generated(config, f"benchmarks/{file.name}", abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """In the repository benchmarks/ is a neighbour of docs/, on the site it lies in it: links lose one `../`."""
    if page.file.src_uri.startswith("benchmarks/"):
        return re.sub(r"\]\(\.\./docs/", "](../", markdown)
    return re.sub(r"\]\(\.\./((?:\.\./)*benchmarks/)", r"](\1", markdown)
