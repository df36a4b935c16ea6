# SPDX-License-Identifier: Apache-2.0
"""All fixtures, by name: FIXTURES maps it to a function of a Maker that returns a Spec."""

import fixtures_files
import fixtures_layers  # noqa: F401
import fixtures_linear  # noqa: F401
from fixturelib import FIXTURES, Maker, Spec  # noqa: F401

fixtures_files.make_variants()
