"""``python -m sailctl``: the same as the ``sailctl`` command."""

from __future__ import annotations

import sys

from sailctl.cli.main import main

sys.exit(main())
