"""`python -m sits_models.cli`, as torchrun starts it."""

from __future__ import annotations

from sits_models.cli import main

if __name__ == "__main__":
    main()
