"""The fault matrix: every kind of fault strikes every twin while a policy drives it through the real bridge."""
