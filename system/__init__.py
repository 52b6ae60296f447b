"""What any program needs: errors, signals, files that are whole or absent, device, command line, terminal.

It uses no other room.
"""
