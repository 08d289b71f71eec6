#!/usr/bin/env python3
"""Extraction beside peers: speed and what is kept, on the same pages in one run.

    python3 -m venv v && v/bin/pip install -r tests/peers/extraction-requirements.txt
    mkdir debs && (cd debs && apt-get download gnustep-base-doc gnustep-gui-doc postgresql-doc-15 python3.11-doc \
        xorg-docs developers-reference debian-reference-en) && for deb in debs/*.deb; do dpkg -x $deb docs; done
    v/bin/python tests/peers/extraction.py --docs docs --retort target/release/retort [--pages 300] [--pdf]

What is counted, of each HTML page, against its own markup (read by lxml):
    headings   h1 to h6 outside navigation that stand in the output as headings
    code       <pre> of two lines and more whose lines stand in the output, one after the other, with their indents
    rows       rows of two cells and more, of tables of short cells, whose cells stand on one line of the output, in order
    leaks      pages with a navigation bar of which six words that stand nowhere else on the page (its own title does) stand in the
               output in a row
Speed is in MB (or pages) per CPU second of one process, start-up left out for the peers; retort's is that of a whole
`retort run` without remembered rows, listing, hashing and writing the table included. With `--reader target/release/deps/extract-*`,
which `cargo bench --no-run --workspace --bench extract` makes, there is a second line, of the reading alone, as it is for the peers.
"""

import argparse
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lxml import html

NAVIGATION = (
    "//*[self::nav or contains(concat(' ',@class,' '),' navheader ') or contains(concat(' ',@class,' '),' navfooter ')"
    " or contains(concat(' ',@class,' '),' related ') or contains(concat(' ',@class,' '),' sphinxsidebar ')"
    " or contains(concat(' ',@class,' '),' header ') or contains(concat(' ',@class,' '),' nav-panel ')]"
)


def squeezed(text):
    return " ".join(text.split())


def words(text):
    return re.findall(r"\w+", text.lower())


class Truth:
    """What a page holds, by its markup."""

    def __init__(self, data):
        tree = html.fromstring(data)
        for gone in tree.xpath("//script|//style|//noscript|//a[contains(@class,'headerlink') or contains(@class,'copiable')]"):
            gone.drop_tree()
        self.bars = []
        bars = tree.xpath(NAVIGATION)
        inside = {below for bar in bars for below in bar.iter() if not bar.xpath(".//h1")}
        outside = " ".join(words(" ".join(text_outside(tree, inside))))
        for bar in bars:
            links = [squeezed(a.text_content()) for a in bar.xpath(".//a[@href]")]
            all_words = words(" ".join(bar.itertext()))
            if len(links) < 2 or len(all_words) < 4 or bar.xpath(".//h1"):
                continue
            runs = [" ".join(all_words[at : at + 6]) for at in range(max(1, len(all_words) - 5))]
            own = next((run for run in runs if run not in outside), None)
            if own:
                self.bars.append(own)
        content = lambda found: [node for node in found if node not in inside]
        self.headings = [squeezed(node.text_content()).strip("¶ ") for node in content(tree.xpath("//h1|//h2|//h3|//h4|//h5|//h6"))]
        self.headings = [text for text in self.headings if words(text) and text.lower() not in ("table of contents", "contents")]
        self.code = []
        for node in content(tree.xpath("//pre[not(contains(@class,'menu-comment') or contains(@class,'display'))]")):
            lines = [line.expandtabs().rstrip() for line in node.text_content().split("\n")]
            lines = [line.replace("\xa0", " ") for line in lines if line.strip()]
            if len(lines) >= 2:
                self.code.append(lines)
        self.rows = []
        for table in content(tree.xpath("//table[not(.//table) and not(.//pre)]")):
            rows = [[squeezed(cell.text_content()) for cell in row.xpath("./td|./th")] for row in table.xpath(".//tr")]
            rows = [[cell for cell in row if words(cell)] for row in rows]
            short = all(len(cell) <= 200 for row in rows for cell in row)
            # An index or a row of buttons is navigation: half of its cells that say something are links.
            linked = len(table.xpath(".//a")) * 2 >= sum(len(row) for row in rows)
            if short and not linked and sum(len(row) >= 2 for row in rows) >= 2:
                self.rows += [row for row in rows if len(row) >= 2]


def text_outside(tree, inside):
    """The texts of a page that lie in none of some elements."""
    for node in tree.iter():
        if node not in inside and node.text:
            yield node.text
        if node.tail and node.getparent() not in inside:
            yield node.tail


def kept_code(lines, output):
    """The lines in a row, all moved in by the same number of blanks."""
    wanted = lines[0].strip()
    for at, line in enumerate(output):
        if line.strip() != wanted:
            continue
        shift = len(line) - len(line.lstrip()) - (len(lines[0]) - len(lines[0].lstrip()))
        if all(
            index < len(output) - at and output[at + index] == (" " * shift + line if shift >= 0 else line[-shift:])
            for index, line in enumerate(lines)
        ):
            return True
    return False


def kept_row(cells, lines):
    for line in lines:
        at = 0
        for cell in cells:
            at = line.find(cell, at)
            if at < 0:
                break
            at += len(cell)
        else:
            return True
    return False


def judge(truths, outputs):
    """Shares in percent: headings, code, rows, leaks."""
    counts = {name: [0, 0] for name in ("headings", "code", "rows", "leaks")}
    for truth, (headings, text) in zip(truths, outputs):
        plain = lambda line: " ".join(words(re.sub(r"\\(.)|[\u00ad\u200b]", r"\1", line)))
        marked = {plain(heading) for heading in headings}
        lines = [line.expandtabs().rstrip().replace("\xa0", " ") for line in text.split("\n")]
        lines = [line for line in lines if line.strip()]
        flat = {plain(line) for line in lines if "|" in line or True}
        for heading in truth.headings:
            counts["headings"][0] += plain(heading) in marked
            counts["headings"][1] += 1
        for code in truth.code:
            counts["code"][0] += kept_code(code, lines)
            counts["code"][1] += 1
        for row in truth.rows:
            counts["rows"][0] += kept_row([plain(cell) for cell in row], flat)
            counts["rows"][1] += 1
        if truth.bars:
            all_words = " ".join(words(text))
            counts["leaks"][0] += any(bar in all_words for bar in truth.bars)
            counts["leaks"][1] += 1
    return {name: 100 * found / max(total, 1) for name, (found, total) in counts.items()}, counts


def marked_headings(text):
    """Headings of markdown, by number signs or by underlines."""
    lines = text.split("\n")
    found = [re.sub(r"^\s*#+\s*", "", line) for line in lines if re.match(r"\s*#{1,6}\s", line)]
    under = zip(lines, lines[1:])
    found += [line for line, below in under if line.strip() and re.fullmatch(r"(=|-){3,}\s*", below)]
    return [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in found]


def peers():
    """Name to a function of a page's bytes, giving text or markdown; those that are installed."""
    found = {}

    def add(name, make):
        try:
            found[name] = make()
        except ImportError as error:
            print(f"left out: {name} ({error})", file=sys.stderr)

    def trafilatura():
        import trafilatura as t

        return lambda data: t.extract(data, output_format="markdown", include_tables=True, include_formatting=True) or ""

    def markitdown():
        import io

        from markitdown import MarkItDown, StreamInfo

        tool = MarkItDown()
        return lambda data: tool.convert_stream(io.BytesIO(data), stream_info=StreamInfo(extension=".html")).markdown

    def html2text():
        import html2text as h

        def convert(data):
            tool = h.HTML2Text()
            tool.body_width = 0
            return tool.handle(data.decode("utf-8", "replace"))

        return convert

    def resiliparse(main):
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import bytes_to_str

        return lambda data: extract_plain_text(bytes_to_str(data), main_content=main, preserve_formatting=True)

    def kreuzberg():
        import kreuzberg as k

        config = k.ExtractionConfig(output_format="markdown")
        return lambda data: k.extract_bytes_sync(data, "text/html", config).content

    add("trafilatura", trafilatura)
    add("markitdown", markitdown)
    add("html2text", html2text)
    add("resiliparse, all", lambda: resiliparse(False))
    add("resiliparse, main", lambda: resiliparse(True))
    add("kreuzberg", kreuzberg)
    return found


def retort(binary, docs, files):
    """Runs a pipeline of one node over the files; its CPU seconds, and what it gave for each."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "docs").symlink_to(docs)
        paths = [f"docs/{path.relative_to(docs)}" for path in files]
        pipeline = {"retort": 1, "nodes": {"documents": {"op": "extract", "with": {"paths": paths}}}}
        (folder / "p.yaml").write_text(json.dumps(pipeline))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.monotonic()
        subprocess.run([binary, "run", "p.yaml"], cwd=folder, check=True, stderr=subprocess.DEVNULL)
        wall = time.monotonic() - begun
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        shown = subprocess.run([binary, "show", "p.yaml", "documents", "--rows", "1000000", "--format", "json"],
                               cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        rows = {}
        for line in shown.decode().splitlines():
            row = json.loads(line)
            text = row["text"].encode()
            blocks = [(block["kind"], text[block["start"]:block["end"]].decode()) for block in row["blocks"]]
            rows[row["path"]] = ([t for kind, t in blocks if kind == "heading"], row["text"])
        print(f"retort: {cpu:.1f} CPU s, {wall:.1f} s, peak {after.ru_maxrss // 1024} MB, "
              f"{len(paths) - len(rows)} of {len(paths)} refused", file=sys.stderr)
        return cpu, [rows.get(path, ([], "")) for path in paths]


def reading(bench, kind, files):
    """Seconds of one thread that reads files one after the other, and does nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(files):
            (Path(folder) / f"{number}.{kind}").write_bytes(data)
        said = subprocess.run([bench, "--bench"], env={**os.environ, "EXTRACT_DIR": folder}, check=True,
                              stdout=subprocess.PIPE).stdout.decode()
        line = next(line for line in said.splitlines() if line.startswith(kind))
        return float(line.split()[line.split().index("s") - 1])


def compare_html(options, docs):
    files = sorted(path for path in docs.rglob("*.html") if path.is_file() and not path.is_symlink())
    random.Random(1).shuffle(files)
    files = files[: options.pages]
    pages = [path.read_bytes() for path in files]
    size = sum(map(len, pages)) / 1e6
    print(f"{len(files)} pages, {size:.1f} MB, load {os.getloadavg()[0]:.1f}")
    truths = [Truth(page) for page in pages]
    print(f"{'':20} {'MB/CPU s':>9} {'headings':>9} {'code':>7} {'rows':>7} {'leaks':>7}")

    def line(name, cpu, outputs):
        shares, counts = judge(truths, outputs)
        print(f"{name:20} {size / cpu:9.2f} {shares['headings']:8.1f}% {shares['code']:6.1f}% {shares['rows']:6.1f}% "
              f"{shares['leaks']:6.1f}%", flush=True)
        return counts

    cpu, outputs = retort(options.retort, docs, files)
    counts = line("retort", cpu, outputs)
    if options.reader:
        line("retort, reading", reading(options.reader, "html", pages), outputs)
    if options.misses:
        misses(files, truths, outputs)
    for name, convert in ({} if options.only else peers()).items():
        convert(pages[0])
        begun = time.process_time()
        texts = [convert(page) for page in pages]
        cpu = time.process_time() - begun
        line(name, cpu, [(marked_headings(text), text) for text in texts])
    print("of " + ", ".join(f"{total} {name}" for name, (_, total) in counts.items()))


def misses(files, truths, outputs):
    for path, truth, output in zip(files, truths, outputs):
        one = lambda name, values: judge([truth_of(**{name: values})], [output])[1][name][0]
        for heading in truth.headings:
            if not one("headings", [heading]):
                print(f"  heading {path}: {heading}")
        for code in truth.code:
            if not one("code", [code]):
                print(f"  code {path}: {code[:2]}")
        for row in truth.rows:
            if not one("rows", [row]):
                print(f"  row {path}: {row}")
        if one("leaks", None if not truth.bars else truth.bars) if truth.bars else False:
            print(f"  leak {path}: {truth.bars}")


def truth_of(headings=(), code=(), rows=(), leaks=()):
    truth = Truth.__new__(Truth)
    truth.headings, truth.code, truth.rows, truth.bars = headings, code, rows, leaks
    return truth


def compare_pdf(options, docs):
    """Pages per CPU second and words of the TXT that came with each PDF, of those that are in the PDF."""
    pairs = []
    for path in sorted([*docs.rglob("*.pdf"), *docs.rglob("*.pdf.gz")]):
        text = path.with_name(path.name.replace(".pdf.gz", ".pdf").replace(".pdf", ".txt"))
        text = text if text.exists() else text.with_name(text.name + ".gz")
        pairs.append((path, text if text.exists() else None))
    import gzip

    opened = lambda path: gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    import pypdfium2

    data = [opened(path) for path, _ in pairs]
    pages = sum(len(pypdfium2.PdfDocument(one)) for one in data)
    oracle = [set(words(opened(text).decode("utf-8", "replace"))) if text else set() for _, text in pairs]
    # A text may say what its PDF does not: what pdfium does not find in it, nobody can.
    oracle = [wanted & set(words(pdfium()(one))) if wanted else wanted for wanted, one in zip(oracle, data)]
    print(f"{len(pairs)} PDF files, {pages} pages, {sum(map(bool, oracle))} with a text to compare")

    def line(name, cpu, texts):
        found = total = 0
        for text, wanted in zip(texts, oracle):
            wanted = {word for word in wanted if len(word) > 2 and word.isalpha()}
            found += len(wanted & set(words(text)))
            total += len(wanted)
        print(f"{name:20} {pages / cpu:9.1f} pages/CPU s, {100 * found / max(total, 1):6.2f}% of the text's words", flush=True)

    cpu, outputs = retort(options.retort, docs, [path for path, _ in pairs])
    line("retort", cpu, [text for _, text in outputs])
    if options.reader:
        line("retort, reading", reading(options.reader, "pdf", data), [text for _, text in outputs])
    if options.only:
        return
    for name, make in PDF_PEERS.items():
        try:
            convert = make()
        except (ImportError, FileNotFoundError) as error:
            print(f"left out: {name} ({error})", file=sys.stderr)
            continue
        # A peer that is a program of its own is timed with its start, a hundredth of a second a file.
        used = lambda: sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        convert(data[0])
        begun = used()
        texts = [convert(one) for one in data]
        line(name, used() - begun, texts)


def pdfium():
    import pypdfium2

    return lambda data: "\n".join(page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(data))


def pypdf():
    import pypdf as p

    return lambda data: "\n".join(page.extract_text() for page in p.PdfReader(io.BytesIO(data)).pages)


def pymupdf():
    import pymupdf as p

    return lambda data: "\n".join(page.get_text() for page in p.open(stream=data, filetype="pdf"))


def pdfminer():
    from pdfminer.high_level import extract_text

    return lambda data: extract_text(io.BytesIO(data))


def kreuzberg_pdf():
    import kreuzberg as k

    return lambda data: k.extract_bytes_sync(data, "application/pdf", k.ExtractionConfig()).content


def pdftotext():
    subprocess.run(["pdftotext", "-v"], check=True, stderr=subprocess.DEVNULL)

    def convert(data):
        done = subprocess.run(["pdftotext", "-", "-"], input=data, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return done.stdout.decode("utf-8", "replace")

    return convert


PDF_PEERS = {
    "pymupdf": pymupdf,
    "pypdfium2": pdfium,
    "pdftotext": pdftotext,
    "kreuzberg": kreuzberg_pdf,
    "pypdf": pypdf,
    "pdfminer.six": pdfminer,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", required=True, type=Path)
    parser.add_argument("--retort", required=True)
    parser.add_argument("--pages", type=int, default=300, help="HTML pages, drawn by a fixed seed")
    parser.add_argument("--pdf", action="store_true", help="PDF instead of HTML")
    parser.add_argument("--reader", help="the bench `extract`")
    parser.add_argument("--only", action="store_true", help="no peers")
    parser.add_argument("--misses", action="store_true", help="print what retort lost")
    options = parser.parse_args()
    options.retort = str(Path(options.retort).resolve())
    docs = options.docs.resolve()
    compare_pdf(options, docs) if options.pdf else compare_html(options, docs)


if __name__ == "__main__":
    main()
