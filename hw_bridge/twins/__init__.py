"""Simulated arms behind the vendor's wire protocol; the only part of the bridge that may import sim."""
