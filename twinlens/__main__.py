"""`python -m twinlens`, which is the command `twinlens`."""

from twinlens.commands.main import main

raise SystemExit(main())
