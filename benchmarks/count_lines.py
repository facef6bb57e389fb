"""Count lines of code by room: without blank lines, comments and docstrings.

Examples:
    python benchmarks/count_lines.py          # the files of this checkout
    python benchmarks/count_lines.py v0.1.0   # those of a revision
"""

import argparse
import ast
import io
import subprocess
import sys
import tarfile
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ('mmmeta', 'tools')
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def count_code(source: str) -> int:
    """Return the number of lines of code in a Python source.

    Args:
        source (str): The text of a file. Lines of strings that are not docstrings count, blank ones do not.
    """
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    text = source.splitlines()
    return sum(bool(text[number - 1].strip()) for number in lines)


def room_of(path: str) -> str:
    """Return the room of a file: its folder below the package, for ``models`` the one below that."""
    folders = path.split('/')[:-1]
    depth = 3 if folders[:2] == ['mmmeta', 'models'] else 2 if folders[0] == 'mmmeta' else 1
    return '/'.join(folders[:depth])


def read_sources(revision: str | None) -> dict[str, str]:
    """Read all Python files of the package and the tools; links to files are left out.

    Args:
        revision (str, optional): A revision that git knows; None for the files of the checkout.

    Returns:
        dict[str, str]: The text of each file by its path from the root of the repository.
    """
    if revision is None:
        paths = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob('*.py')))
        return {
            path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8')
            for path in paths
            if not path.is_symlink()
        }
    command = ['git', '-C', str(ROOT), 'archive', '--format=tar', revision, '--', *FOLDERS]
    result = subprocess.run(command, stdout=subprocess.PIPE)
    if result.returncode:
        sys.exit(result.returncode)  # git has printed the reason
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as archive:
        return {
            member.name: archive.extractfile(member).read().decode()
            for member in archive
            if member.isfile() and member.name.endswith('.py')
        }


def table(sources: dict[str, str]) -> str:
    """Return a Markdown table: files, all lines, lines of code and their share, by room and in all.

    Args:
        sources (dict[str, str]): The text of each file by its path.
    """
    files, lines, code = Counter(), Counter(), Counter()
    for path, source in sources.items():
        for row in (room_of(path), f'all of {path.partition("/")[0]}'):
            files[row] += 1
            lines[row] += len(source.splitlines())
            code[row] += count_code(source)
    rows = ['| room | files | lines | code | share |', '|---|---|---|---|---|']
    for folder in FOLDERS:
        whole = f'all of {folder}'
        rooms = sorted(room for room in files if room.partition('/')[0] == folder)
        for row in (*(rooms if len(rooms) > 1 else ()), whole):
            share = f'{100 * code[row] / max(code[whole], 1):.1f} %'
            rows.append(f'| {row} | {files[row]} | {lines[row]} | {code[row]} | {share} |')
    return '\n'.join(rows)


def main() -> None:
    """Print the table of a revision or of the checkout."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('revision', nargs='?', help='a revision of git (default: the files of the checkout)')
    revision = parser.parse_args().revision
    if revision is not None and revision.startswith('-'):
        parser.error(f"'{revision}' is not a revision")
    print(table(read_sources(revision)))


if __name__ == '__main__':
    main()
