"""Campaigns of faults: kills, full disks, damage, hostile files, impossible numbers. `make faults` runs them and prints their table."""
