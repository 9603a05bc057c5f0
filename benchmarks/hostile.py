"""What becomes of files, recipes and requests of strangers: of each of many, whether it ends as promised.

    python -m benchmarks.hostile [--quick] [--minutes 10] [--samples FOLDER] [--keep FOLDER]

Files: those that are made to take time and memory (tests/hostile/costly.py), those kept of earlier runs, the samples,
and such as a fuzzer that knows the formats makes; then bytes that atheris changes, where it is installed. Recipes:
tests/hostile/strange_recipes.py. Each failure is kept as a small file, for a test to repeat (tests/hostile/found).

Keys of the last line, one JSON object: files, recipes and requests that were tried; files_wrong and recipes_wrong, for
which something else came than what was promised (a file: deltas or a refusal, listed as it is loaded); requests_500;
slowest_ms, processor time of listing or loading a file of at most a megabyte; peak_mb, the largest peak of resident
memory while a file is listed or loaded, above what the process had before and three times the file. A time of more than
300 ms is measured three times and the least taken. On Linux.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from . import record

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "hostile"), str(TESTS)]  # as pytest has them

from . import hostile_bytes, hostile_files, hostile_recipes, hostile_requests  # noqa: E402

QUICK = 0.25
"""minutes of each part with `--quick`"""


def main() -> None:
    options = arguments()
    each = QUICK if options.quick else options.minutes / 3
    options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        files = hostile_files.files(work, each if options.quick else each / 2, options.keep, options.samples,
                                    large=not options.quick)
        if not options.quick:
            files = files.joined(hostile_bytes.files(work, each / 2, options.keep))
        found = {**files.told(), **hostile_recipes.recipes(each, options.keep),
                 **hostile_requests.requests(each, options.keep)}
    result = {"machine": record.machine(), "commit": record.commit(), "versions": record_versions(),
              "minutes": round(3 * each, 2), "atheris": hostile_bytes.is_installed(), **found}
    if not options.quick:
        print("kept in", record.write("hostile", result))
    print(json.dumps(found))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of fuzzing, a third for each part")
    parser.add_argument("--samples", type=Path, help="a folder of files to try too")
    parser.add_argument("--keep", type=Path, default=TESTS / "hostile" / "found", help="the folder for what fails")
    parser.add_argument("--quick", action="store_true", help="a minute or two; nothing is kept but failures")
    return parser.parse_args()


def record_versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": sys.version.split()[0], **{name: version(name) for name in ("torch", "hypothesis", "pydantic")}}


if __name__ == "__main__":
    main()
