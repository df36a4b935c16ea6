#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tests of the tests: the arithmetic against rationals, the fixtures against a program that
is right, and each known mistake against the fixtures that must catch it. Needs numpy only."""

import os
import sys
import tempfile

sys.dont_write_bytecode = True

import contract  # noqa: E402
import fixtures  # noqa: E402
import pretend  # noqa: E402
import run  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


def verdict(name, work, mistake=None):
    """Complaints of one fixture about the stand-in."""
    if mistake:
        os.environ["LORACTL_PRETEND"] = mistake
    else:
        os.environ.pop("LORACTL_PRETEND", None)
    folder = tempfile.mkdtemp(dir=work)
    return run.numpy_case([sys.executable, os.path.join(HERE, "pretend.py")], name, folder)


def main():
    failed = contract.main()
    with tempfile.TemporaryDirectory() as work:
        for name in fixtures.FIXTURES:
            bad = verdict(name, work)
            # the stand-in knows the arithmetic and the shapes; refusals that only a config asks
            # for are not its business
            if bad and not any(b.startswith("exit 0, not 3") or "stderr" in b for b in bad):
                failed += 1
                print("FAIL %s: %s" % (name, "; ".join(bad[:3])))
        for mistake, (_, caught_by) in pretend.MISTAKES.items():
            for name in caught_by:
                if not verdict(name, work, mistake):
                    failed += 1
                    print("FAIL '%s' is not caught by %s" % (mistake, name))
    print(
        "%d fixtures, %d mistakes, %d failed"
        % (len(fixtures.FIXTURES), len(pretend.MISTAKES), failed)
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
