"""The texts that run inside a MiniCluster's pods: `entry.sh` and the programs for Flux's Python in it.

`executors.render.entry` puts them together. A program stands where its file's name does (``@name.py@`` on a line). It
needs Python 3.8 and the standard library. What the shell has in single quotes has none of its own.
"""
