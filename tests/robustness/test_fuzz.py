"""Damaged files of every format: an error of one line or the original content, never a traceback, a crash or a hang.

``make fuzz`` runs more cases: ``TLEE_FUZZ`` is their number, and ``TLEE_FUZZ_SEED`` draws others.
"""

import os
from collections import Counter

import pytest
from support.formats import FORMATS
from support.fuzzing import CHANGED, REFUSED, SAME, run_cases

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("TLEE_FUZZ", "200"))
SEED = int(os.environ.get("TLEE_FUZZ_SEED", "0"))


def test_a_damaged_file_is_refused_or_read_unchanged():
    counts = {name: -(-CASES // len(FORMATS)) for name in FORMATS}
    cases = list(run_cases(counts, SEED))
    results = {name: Counter(case.result for case in cases if case.format == name) for name in FORMATS}
    for name, found in results.items():
        print(f"{name}: {', '.join(f'{count} {result}' for result, count in sorted(found.items()))}")
    assert {name: found.total() for name, found in results.items()} == counts
    failures = [case for case in cases if case.result not in (SAME, REFUSED, CHANGED)]
    assert not failures, "\n".join(map(str, failures))
