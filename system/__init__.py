"""What any program needs: errors, signals, files that are whole or absent, device, command line, terminal.

The lowest room: it uses nothing else of this project.
"""
